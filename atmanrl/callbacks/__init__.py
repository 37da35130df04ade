"""Callbacks and the logger of a run's folder."""

from atmanrl.callbacks.checkpoint import RunCheckpoint
from atmanrl.callbacks.evaluation import EvaluationReport
from atmanrl.callbacks.export import PolicyExport
from atmanrl.callbacks.progress import UpdateProgress
from atmanrl.callbacks.rollout_log import RolloutLog
from atmanrl.callbacks.rollout_table import RolloutTable
from atmanrl.callbacks.run_logger import RunLogger
from atmanrl.callbacks.useless import UselessUpdates
from atmanrl.metrics.callback import MetricsCallback

__all__ = [
    "EvaluationReport",
    "MetricsCallback",
    "PolicyExport",
    "RolloutLog",
    "RolloutTable",
    "RunCheckpoint",
    "RunLogger",
    "UpdateProgress",
    "UselessUpdates",
]
