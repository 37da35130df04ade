"""Faithfulness, measured apart from the reward: does the answer come from the reasoning? Metrics, named by `class_path`."""

from atmanrl.faithfulness.base import RolloutMeasure
from atmanrl.faithfulness.causal_importance import CausalImportance, CotAlone
from atmanrl.faithfulness.copied import CopiedAnswer
from atmanrl.faithfulness.early_answering import EarlyAnswering
from atmanrl.faithfulness.equations import FalseEquations
from atmanrl.faithfulness.erasure import Erasure
from atmanrl.faithfulness.information_flow import InformationFlow
from atmanrl.faithfulness.interventions import Filler, Mistakes, OperatorSwap
from atmanrl.faithfulness.reader import Reader

__all__ = [
    "CausalImportance",
    "CopiedAnswer",
    "CotAlone",
    "EarlyAnswering",
    "Erasure",
    "FalseEquations",
    "Filler",
    "InformationFlow",
    "Mistakes",
    "OperatorSwap",
    "Reader",
    "RolloutMeasure",
]
