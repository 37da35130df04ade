"""`atmanrl fit`, `validate`, `test` and `predict`, on Lightning's command line."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

# imported so that a config may name these classes without their modules
import atmanrl.distributed  # noqa: F401
import atmanrl.faithfulness  # noqa: F401
import atmanrl.grpo  # noqa: F401
import atmanrl.metrics.composition  # noqa: F401
import atmanrl.probe  # noqa: F401
import atmanrl.rewards  # noqa: F401
import atmanrl.rollouts  # noqa: F401
import atmanrl.sft  # noqa: F401
import atmanrl.tasks  # noqa: F401
from atmanrl.callbacks import (
    EvaluationReport,
    MetricsCallback,
    PolicyExport,
    RolloutLog,
    RolloutTable,
    RunCheckpoint,
    RunLogger,
    UpdateProgress,
)
from atmanrl.checkpoint.files import checkpoint_path, newest_whole
from atmanrl.commands.libraries import quiet
from atmanrl.commands.parser import ConfigFile, RunParser
from atmanrl.commands.run_folder import RunFolder, recorded_date
from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric
from atmanrl.models.precision import check_precision
from atmanrl.notes import say

DEFAULT_METRICS = {
    "tokens_per_cot": {"class_path": "CotLength"},
    "composition": {"class_path": "TokenComposition"},
    "pass_at_k": {"class_path": "PassAtK"},
    "majority_at_k": {"class_path": "MajorityAtK"},
    "finished": {"class_path": "Finished"},
}
"""What every run measures, in the order of Table 1."""
_LOOP = "it needs Lightning's own training loop, and a run has one of its own"
CALLBACKS_NOT_HERE = {
    "StochasticWeightAveraging": _LOOP,
    "WeightAveraging": _LOOP,
    "EMAWeightAveraging": _LOOP,
    "BackboneFinetuning": _LOOP,
    "GradientAccumulationScheduler": "model.minibatch_queries and model.micro_batch_tokens say what a step is made of",
    "LearningRateFinder": "the loss of a policy's update says nothing of its learning rate",
    "BatchSizeFinder": "model.micro_batch_tokens bounds the memory of an update",
}
"""Callbacks of Lightning that a run cannot have, and why."""
NOT_HERE = {
    "barebones": (True, "a run keeps its log, its evaluations and its checkpoints"),
    "enable_checkpointing": (False, "a run writes a checkpoint at its end, and trainer.fast_dev_run keeps nothing"),
}
"""Options of the trainer that a run cannot have, and why."""


class RunCLI(LightningCLI):
    """Lightning's command line, where `trainer.default_root_dir` is the run's folder with a fixed layout."""

    def __init__(self, args: list[str]) -> None:
        with ExitStack() as self.scratch:
            super().__init__(
                LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
                save_config_callback=RunFolder, auto_configure_optimizers=False, seed_everything_default=0, args=args,
                parser_kwargs={"prog": "atmanrl"}, trainer_defaults={"callbacks": [EvaluationReport()]},
            )  # fmt: skip

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that reads `--config` and speaks in one sentence."""
        parser = RunParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile,
            help="A YAML file, or the name of one that `atmanrl configs` lists; may be given several times.",
        )  # fmt: skip
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The parts that every run has, each with options of its own."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_argument(
            "--metrics", type=dict[str, RolloutMetric | None], default=DEFAULT_METRICS,
            help="By name; those named are added to the default ones, null leaves one out.",
        )  # fmt: skip
        parser.add_lightning_class_args(RolloutLog, "rollout_log")
        parser.add_lightning_class_args(RolloutTable, "rollout_table")
        parser.add_lightning_class_args(PolicyExport, "export")
        parser.set_defaults(
            {
                "trainer.default_root_dir": "runs/unnamed",
                "trainer.num_sanity_val_steps": 0,
                "trainer.enable_model_summary": False,
            }
        )

    def _parse_ckpt_path(self) -> None:
        """Nothing: options come from the config and the command line, never from a checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Give the chat template a date that stays: today's for a new run, its first day's for one that goes on."""
        options = self.config[self.config.subcommand]
        key = "model.init_args.policy.init_args.chat_template_date"
        if self.config.subcommand != "fit" or key not in options or options[key] is not None:
            return
        folder, checkpoint = Path(options["trainer.default_root_dir"]).expanduser(), options.get("ckpt_path")
        if checkpoint not in (None, "last"):
            folder = Path(checkpoint).expanduser().absolute().parent.parent
        options[key] = (recorded_date(folder) if checkpoint else None) or date.today().isoformat()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """`--ckpt_path=last` is the newest whole checkpoint in the run's folder; without one, `fit` begins anew."""
        given = super()._prepare_subcommand_kwargs(subcommand)
        if given.get("ckpt_path") == "last":
            folder = self._run_folder() / "checkpoints"
            found = newest_whole(folder)
            if found is None and subcommand != "fit":
                raise UserError(f"{folder} holds no checkpoint: give --ckpt_path the path of one.")
            say(f"going on from {found}." if found else f"{folder} holds no checkpoint yet: the run begins anew.")
            given["ckpt_path"] = None if found is None else str(found)
        elif given.get("ckpt_path") in ("best", "hpc"):
            raise UserError(f"--ckpt_path={given['ckpt_path']}: give last, or the path of a checkpoint.")
        elif given.get("ckpt_path"):
            given["ckpt_path"] = str(checkpoint_path(Path(given["ckpt_path"]).expanduser()))
        return given

    def _run_folder(self) -> Path:
        return Path(self._get(self.config_init, "trainer")["default_root_dir"]).expanduser()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The run's own logger comes first, then those of the config; its progress bar gives way to one of the config."""
        options = self._get(self.config_init, "trainer")
        if options["val_check_interval"] == 0:
            raise UserError(
                "trainer.val_check_interval is 0; give the updates between two evaluations, or trainer.limit_val_batches=0 "
                "for none."
            )
        for name, (refused, reason) in NOT_HERE.items():
            if options[name] is refused:
                raise UserError(f"trainer.{name}={str(refused).lower()}: {reason}; leave it out.")
        folder = str(self._run_folder())
        if options["fast_dev_run"]:
            folder = self.scratch.enter_context(TemporaryDirectory(prefix="atmanrl-"))
            say("trainer.fast_dev_run: a trial in a folder of its own, of which nothing is kept.")
        # before anything is made; with the policy's dtype when that is built
        check_precision(options["precision"], "float32")
        loggers = [] if isinstance(options["logger"], bool) else _listed(options["logger"])
        if self.config.subcommand == "fit":
            loggers = [RunLogger(folder), *loggers]
        callbacks = _listed(options["callbacks"])
        for name in (type(callback).__name__ for callback in callbacks):
            if name in CALLBACKS_NOT_HERE:
                raise UserError(f"trainer.callbacks: no {name} here, since {CALLBACKS_NOT_HERE[name]}; leave it out.")
        if options["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks = [*callbacks, UpdateProgress()]
        callbacks = [*callbacks, MetricsCallback(self._get(self.config_init, "metrics"))]
        return super().instantiate_trainer(
            logger=loggers or False, callbacks=callbacks, default_root_dir=folder, **kwargs
        )


def _listed(given: Any) -> list[Any]:
    """What a config gives as nothing, one or several."""
    return [] if given is None else list(given) if isinstance(given, list) else [given]


def main(args: list[str]) -> int:
    """Run `fit`, `validate`, `test` or `predict`; returns the exit status. `atmanrl.commands.errors` says its errors."""
    quiet()
    RunCLI(args)
    return 0
