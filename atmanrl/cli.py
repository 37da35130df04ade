"""The command line on Lightning's: `fit`, `validate`, `test`, `predict`, and `probe` for stored traces."""

from __future__ import annotations

import errno
import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from transformers.utils import logging as transformers_logging

# imported so that a config may name these classes without their modules
import atmanrl.distributed  # noqa: F401
import atmanrl.grpo  # noqa: F401
import atmanrl.probe  # noqa: F401
import atmanrl.rewards  # noqa: F401
import atmanrl.rollouts  # noqa: F401
import atmanrl.sft  # noqa: F401
import atmanrl.tasks  # noqa: F401
from atmanrl.callbacks import (
    CompositionCallback,
    EvaluationReport,
    PolicyExport,
    RolloutLog,
    RolloutTable,
    RunCheckpoint,
    RunLogger,
    UpdateProgress,
)
from atmanrl.callbacks.checkpoint_files import newest_whole
from atmanrl.callbacks.interruption import EXIT_STATUS, Interrupted
from atmanrl.cli_parser import RunParser
from atmanrl.errors import UserError, say_error
from atmanrl.files import written_aside
from atmanrl.notes import say


class RunConfig(SaveConfigCallback):
    """Saves `config.yaml` in the run's folder, and keeps a new run out of a folder that already holds one."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before anything is trained."""
        if stage != "fit":
            return
        folder = Path(trainer.default_root_dir)
        # the first process looks before it writes, for all of them
        if trainer.strategy.broadcast((folder / self.config_filename).exists()) and not self.config.get("ckpt_path"):
            raise UserError(
                f"{folder} already holds a run; choose another --trainer.default_root_dir, or go on with that run by "
                "--ckpt_path=last."
            )
        if trainer.is_global_zero:
            with written_aside(folder / self.config_filename) as file:
                file.write(self.parser.dump(self.config, skip_none=False))


class RunCLI(LightningCLI):
    """Lightning's command line, where `trainer.default_root_dir` is the run's folder with a fixed layout."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
            save_config_callback=RunConfig, auto_configure_optimizers=False, seed_everything_default=0, args=args,
            parser_kwargs={"prog": "atmanrl"}, trainer_defaults={"callbacks": [EvaluationReport()]},
        )  # fmt: skip

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that reads `--config` and speaks in one sentence."""
        parser = RunParser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="A YAML file; may be given several times.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The parts that every run has, each with options of its own."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(CompositionCallback, "composition")
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

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """`--ckpt_path=last` is the newest whole checkpoint in the run's folder; without one, `fit` begins anew."""
        given = super()._prepare_subcommand_kwargs(subcommand)
        if given.get("ckpt_path") == "last":
            folder = Path(self.trainer.default_root_dir) / "checkpoints"
            found = newest_whole(folder)
            if found is None and subcommand != "fit":
                raise UserError(f"{folder} holds no checkpoint: give --ckpt_path the path of one.")
            say(f"going on from {found}." if found else f"{folder} holds no checkpoint yet: the run begins anew.")
            given["ckpt_path"] = None if found is None else str(found)
        return given

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The run's own logger comes first, then those of the config; its progress bar gives way to one of the config."""
        options = self._get(self.config_init, "trainer")
        if options["val_check_interval"] == 0:
            raise UserError(
                "trainer.val_check_interval is 0; give the updates between two evaluations, or trainer.limit_val_batches=0 "
                "for none."
            )
        loggers = [] if isinstance(options["logger"], bool) else _listed(options["logger"])
        if self.config.subcommand == "fit":
            loggers = [RunLogger(options["default_root_dir"]), *loggers]
        callbacks = _listed(options["callbacks"])
        if options["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks = [*callbacks, UpdateProgress()]
        return super().instantiate_trainer(logger=loggers or False, callbacks=callbacks, **kwargs)


def _listed(given: Any) -> list[Any]:
    """What a config gives as nothing, one or several."""
    return [] if given is None else list(given) if isinstance(given, list) else [given]


def quiet() -> None:
    """Keep the terminal for what a run has to say: no advertisements, no bars of libraries, no advice on workers."""
    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*args parameter is intended to run from within Python.*")
    # a resumed run goes on with its log, its checkpoints and its order of problems; Lightning cannot know
    warnings.filterwarnings("ignore", ".*Checkpoint directory.*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    # what is logged at the end of an epoch is known to all processes already
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log.*sync_dist=True.*")
    # checkpoints are written between updates, never within one
    warnings.filterwarnings("ignore", "(?s).*ModelCheckpoint with manual optimization.*")
    # the policy learns in eval mode on purpose: with dropout, the ratio to the sampling policy would be noise
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")


def users_error(error: BaseException | None) -> BaseException | None:
    """The error that a user can mend, also where the parser has wrapped it while it made an object."""
    outermost = str(error)
    while error is not None and not isinstance(error, (UserError, MisconfigurationException)):
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return UserError(
                f"no space is left to write {error.filename or 'a file'}; make room, then go on with the run."
            )
        error = error.__cause__ or error.__context__
    if error is None and outermost.startswith("Does not validate against any of the Union"):
        # an option that may be a name or an object: the parser chains the name's refusal, and quotes the object's
        said = re.search(r"^ *- (?!Expected a |Does not validate )(.+)$", outermost, re.MULTILINE)
        return UserError(said[1]) if said else None
    return error


def main(args: list[str]) -> int:
    """Run a command; a `UserError` becomes one sentence and status 1, a run that a signal has ended status 75."""
    quiet()
    try:
        if args[0] == "probe":
            from atmanrl.probe_command import main as probe

            probe(args[1:])
        else:
            RunCLI(args)
    except Interrupted as error:
        print(f"atmanrl: {error}", file=sys.stderr)
        return EXIT_STATUS
    except Exception as error:
        mendable = users_error(error)
        if mendable is None:
            raise
        say_error(mendable)
        return 1
    except KeyboardInterrupt:
        print("atmanrl: interrupted.", file=sys.stderr)
        return 130
    return 0
