"""`atmanrl fit`, `validate`, `test` and `predict`, on Lightning's command line; `commands.run` comes before it."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jsonargparse import Namespace
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
    UselessUpdates,
)
from atmanrl.checkpoint.files import checkpoint_path, newest_whole
from atmanrl.commands.errors import mendable
from atmanrl.commands.libraries import quiet
from atmanrl.commands.options.early import DEFAULT_FOLDER
from atmanrl.commands.options.keys import with_whole_keys
from atmanrl.commands.options.sections import METRICS
from atmanrl.commands.options.trainer import check_callback, check_trainer
from atmanrl.commands.options.typed import Node
from atmanrl.commands.parser import ConfigFile, RunParser
from atmanrl.commands.run_folder import RunFolder, recorded_date
from atmanrl.commands.run_guide import RunGuide
from atmanrl.errors import UserError
from atmanrl.lightning_internals import IgnoresHyperparameters
from atmanrl.metrics.base import RolloutMetric
from atmanrl.models.precision import check_precision
from atmanrl.notes import say


class RunCLI(IgnoresHyperparameters, LightningCLI):
    """Lightning's command line, where `trainer.default_root_dir` is the run's folder with a fixed layout."""

    def __init__(self, args: list[str]) -> None:
        self.named = args[0]
        with ExitStack() as self.scratch:
            super().__init__(
                LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
                save_config_callback=RunFolder, auto_configure_optimizers=False, seed_everything_default=0, args=args,
                parser_kwargs={"prog": "atmanrl"}, trainer_defaults={"callbacks": [EvaluationReport()]},
            )  # fmt: skip

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the command that is run alone: every further one costs a parser of all options, a tenth of a second."""
        return {self.named: super().subcommands()[self.named]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser that reads `--config` and whose errors are one sentence."""
        parser = RunParser(**kwargs)
        parser.add_argument(
            "-c", "--config", action=ConfigFile,
            help="A YAML file, or the name of one that `atmanrl configs` lists; may be given several times.",
        )  # fmt: skip
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the parts that every run has, each with options of its own."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_argument(
            "--metrics", type=dict[str, RolloutMetric | None], default=METRICS,
            help="By name; those named are added to the default ones, null leaves one out.",
        )  # fmt: skip
        parser.add_lightning_class_args(RolloutLog, "rollout_log")
        parser.add_lightning_class_args(RolloutTable, "rollout_table")
        parser.add_lightning_class_args(PolicyExport, "export")
        parser.set_defaults(
            {
                "trainer.default_root_dir": DEFAULT_FOLDER,
                "trainer.num_sanity_val_steps": 0,
                "trainer.enable_model_summary": False,
            }
        )

    def before_instantiate_classes(self) -> None:
        """Fill in what depends on the run: where loggers write, and the date of the chat template.

        That is today's for a new run, and its first day's for one that goes on, so that it stays.
        """
        options = self.config[self.config.subcommand]
        for logger in _listed(options.get("trainer.logger")):
            arguments = logger.get("init_args") if isinstance(logger, Namespace) else None
            if arguments is not None and arguments.get("save_dir", "") in (None, "."):
                arguments["save_dir"] = options["trainer.default_root_dir"]  # W&B's own default is where we stand
        key = "model.init_args.policy.init_args.chat_template_date"
        if self.config.subcommand != "fit" or key not in options or options[key] is not None:
            return
        folder, checkpoint = Path(options["trainer.default_root_dir"]).expanduser(), options.get("ckpt_path")
        if checkpoint not in (None, "last"):
            folder = Path(checkpoint).expanduser().absolute().parent.parent
        options[key] = (recorded_date(folder) if checkpoint else None) or date.today().isoformat()

    def before_fit(self) -> None:
        """Let `--ckpt_path=last` be the newest whole checkpoint in the run's folder; without one, `fit` begins anew."""
        options = self.config_init[self.subcommand]
        if self.subcommand in ("validate", "test"):
            options["verbose"] = False  # `RunGuide` prints the metrics
        path = options["ckpt_path"]
        if path == "last":
            folder = Path(options["trainer"]["default_root_dir"]).expanduser() / "checkpoints"
            newest = newest_whole(folder)
            if newest is None and self.subcommand != "fit":
                raise UserError(f"{folder} holds no checkpoint: give --ckpt_path the path of one.")
            say(f"going on from {newest}." if newest else f"{folder} holds no checkpoint yet: the run begins anew.")
            options["ckpt_path"] = None if newest is None else str(newest)
        elif path in ("best", "hpc"):
            raise UserError(f"--ckpt_path={path}: give last, or the path of a checkpoint.")
        elif path:
            options["ckpt_path"] = str(checkpoint_path(Path(path).expanduser()))

    before_validate = before_test = before_predict = before_fit

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer: the run's own logger before the config's, and a progress bar unless the config has one."""
        config = self.config_init[self.subcommand]
        options = config["trainer"]
        check_trainer(options)
        folder = str(Path(options["default_root_dir"]).expanduser())
        if options["fast_dev_run"]:
            folder = self.scratch.enter_context(TemporaryDirectory(prefix="atmanrl-"))
            say("trainer.fast_dev_run: a trial in a folder of its own, of which nothing is kept.")
        # before anything is built; once more, with the policy's dtype, when the policy is
        check_precision(options["precision"], "float32")
        loggers = [] if isinstance(options["logger"], bool) else _listed(options["logger"])
        if self.subcommand == "fit":
            loggers = [RunLogger(folder), *loggers]
        callbacks = _listed(options["callbacks"])
        for callback in callbacks:
            check_callback(type(callback).__name__)
        self.guide = RunGuide(None if options["fast_dev_run"] else Path(folder))
        callbacks = [*callbacks, self.guide]
        if options["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks = [*callbacks, UpdateProgress()]
        callbacks = [*callbacks, MetricsCallback(config["metrics"]), UselessUpdates()]
        return super().instantiate_trainer(
            logger=loggers or False, callbacks=callbacks, default_root_dir=folder, **kwargs
        )


def _listed(option: Any) -> list[Any]:
    """Return as a list what a config may leave out, or give once or several times."""
    return [] if option is None else list(option) if isinstance(option, list) else [option]


def run(command: str, options: list[str], root: Node) -> int:
    """Run `fit`, `validate`, `test` or `predict`, and return the exit status.

    Args:
        command: which of them.
        options: that follow it.
        root: what they set; errors name an option as it stands there.

    Raises:
        UserError: an error that a user can mend.
    """
    quiet()
    try:
        cli = RunCLI([command, *options])
        cli.guide.finish(cli.trainer, command)
    except Exception as error:
        sentence = mendable(error)
        if sentence is None:
            raise
        raise UserError(with_whole_keys(sentence, root, command)) from error
    return 0
