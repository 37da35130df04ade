"""`RunCheckpoint`: when a run writes its checkpoints, and what it puts in order when it goes on from one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn

from atmanrl.callbacks.run_logger import RunLogger, drop_updates_beyond
from atmanrl.checkpoint.base_model import leave_out_base, put_back_base
from atmanrl.checkpoint.files import checkpoint_name, checkpoints, put_in_place, set_aside_beyond
from atmanrl.checkpoint.interruption import Interruption
from atmanrl.checkpoint.random_state import random_state, restore_random_state
from atmanrl.checkpoint.reading import CheckpointError, CheckpointFile, check_fits
from atmanrl.checkpoint.resume import Resumption
from atmanrl.distributed import all_gather, processes
from atmanrl.errors import Interrupted, UserError
from atmanrl.io.files import remove, temporary_path
from atmanrl.lightning_internals import call_after_update, checkpoint_contents
from atmanrl.pulse import is_changing, listen, stop_listening


class RunCheckpoint(Checkpoint):
    """Writes `checkpoints/update_00020.ckpt` every so many updates and at the end.

    `last.ckpt` is a link to the newest, for scripts; nothing here needs it, and a disk without links has none.

    A checkpoint is written after all else of its update: rollouts, metrics, and the evaluation that follows. So a run that
    goes on from it finds its log complete, whenever it was killed. It is written under a temporary name, flushed to the
    disk and renamed; older ones are removed after that.

    At SIGTERM or SIGUSR1 the run saves and ends, with status 75; at SIGINT (Ctrl-C) likewise, with status 130. While it
    samples or probes that takes seconds: the update is given up, and the one before it is saved. In the midst of optimizer
    steps or of an evaluation, and on several processes, it comes after the update. Before training has begun, a signal ends
    the run at once.

    Args:
        every_n_updates: how many updates apart.
        keep: how many of the newest are kept, at least 2, so that there is another if one is damaged; -1 keeps all.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(self, every_n_updates: int = 20, keep: int = 2) -> None:
        if every_n_updates < 1:
            raise UserError(f"checkpoint.every_n_updates is {every_n_updates}; give at least 1.")
        if keep < 2 and keep != -1:
            raise UserError(f"checkpoint.keep is {keep}; give at least 2, or -1 to keep all.")
        self.every_n_updates, self.keep = every_n_updates, keep
        self.folder = Path()
        self.interruption = Interruption()
        self._saved = self._seen = 0
        self._standing: dict[str, Any] = {}
        self._random: dict[str, Any] = {}
        self._random_between: dict[str, Any] = {}
        self._heed: Callable[[str, int, int], None] | None = None
        self._resumption = Resumption()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let checkpoints be written straight to the run's folder, and be checked when they are read."""
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CheckpointFile(partial(self._check, module=pl_module))
        self._resumption = Resumption()
        self._resumption.note_callbacks(trainer)

    def _check(self, path: object, checkpoint: dict[str, Any], module: LightningModule) -> None:
        put_back_base(path, checkpoint, module)
        check_fits(path, checkpoint, module)
        if module.trainer.training:
            self._resumption.check_start(path, checkpoint, module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what the run is asked for, and refuse what a run that goes on cannot change."""
        self._resumption.note_asked(trainer, pl_module)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the random state until training starts, and what the checkpoint's run was asked for."""
        self._random = checkpoint.get("random", {})
        if trainer.training:
            self._resumption.note_before(checkpoint)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the module's class, the options, the random state, and where the loop stood when its update ended.

        Of adapters, leave the base model out.
        """
        checkpoint["module"], checkpoint["asked"] = type(pl_module).__name__, self._resumption.asked
        leave_out_base(checkpoint, pl_module, self._resumption.asked.get("start", ""))
        checkpoint["loops"] = {**checkpoint["loops"], **self._standing}
        if trainer.world_size == 1:
            between = trainer.global_step == self._seen  # two updates, or in one that is given up
            checkpoint["random"] = self._random_between if between and self._random_between else random_state()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear up what a killed run has left beyond its checkpoint: it will be written again.

        Raises:
            CheckpointError: the run goes on from a checkpoint with another optimizer.
        """
        self._saved = self._seen = trainer.global_step
        for optimizer in trainer.optimizers:
            missing = sorted({o for o in optimizer.defaults for group in optimizer.param_groups if o not in group})
            if missing:
                raise CheckpointError(
                    f"the checkpoint holds another optimizer's state, without {missing[0]} of "
                    f"{type(optimizer).__name__}: name the --model.optimizer that it was trained with."
                )
        self._resumption.apply(trainer)
        if trainer.is_global_zero:
            # checkpoints before their log: none ever stands there whose log is gone
            set_aside_beyond(self.folder, trainer.global_step)
            drop_updates_beyond(Path(trainer.default_root_dir), trainer.global_step)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.rewind(trainer.global_step)
        self.interruption.install()
        call_after_update(trainer, partial(self._update_ended, trainer))
        self._random_between = {}
        if trainer.world_size == 1:
            self._heed = partial(self._within_update, trainer)
            listen(self._heed)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Heed no signal any more."""
        if self._heed is not None:
            stop_listening(self._heed)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Heed no signal any more."""
        self.teardown(trainer, pl_module, "fit")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take up the random state: Lightning has drawn on it where a run goes on after an evaluation."""
        if self._random and trainer.world_size == 1:
            restore_random_state(self._random)
        self._random = {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note where the loop stands."""
        self._standing = {"fit_loop": trainer.fit_loop.state_dict()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last update, whatever its number."""
        if trainer.global_step > self._saved:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint of the current update. All processes must call it.

        Raises:
            CheckpointError: the disk is full, or cannot be written to; earlier checkpoints are as they were.
        """
        path = self.folder / checkpoint_name(trainer.global_step)
        temporary = all_gather(temporary_path(path))[0]  # the first process's, for all
        contents = checkpoint_contents(trainer)
        first = trainer.is_global_zero
        self._together(path, temporary, lambda: self.folder.mkdir(parents=True, exist_ok=True) if first else None)
        self._together(path, temporary, lambda: trainer.strategy.save_checkpoint(contents, temporary))
        self._together(path, temporary, lambda: put_in_place(temporary, path) if first else None)
        self._saved = trainer.global_step
        if first and self.keep != -1:
            for _, old in checkpoints(self.folder)[self.keep :]:
                remove(old)

    def _together(self, path: Path, temporary: Path, step: Callable[[], None]) -> None:
        """Take a step on every process; where the disk refuses it to one, all of them raise the error.

        Otherwise the others would wait for one that has given up.
        """
        refused: OSError | None = None
        try:
            step()
        except OSError as error:
            refused = error
        reason = next(filter(None, all_gather(refused and (refused.strerror or str(refused)))), None)
        if reason is None:
            return
        if processes().rank == 0:
            remove(temporary)
        good = checkpoints(self.folder)
        last = f"; {good[0][1].name} is the last good one" if good else ""
        full = reason in [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
        raise CheckpointError(
            f"no checkpoint could be written to {path}: {reason}{last}. {'Make room' if full else 'Mend that'}, then go on "
            "with the same command and --ckpt_path=last."
        ) from refused

    def _update_ended(self, trainer: Trainer) -> None:
        if trainer.global_step == self._seen:
            return  # gradients of a step are still being gathered
        self._seen = trainer.global_step
        if trainer.world_size == 1:
            self._random_between = random_state()
        interrupted = self._interrupted(trainer)
        if interrupted or trainer.global_step % self.every_n_updates == 0:
            self.save(trainer)
        if interrupted:
            self._end(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals end an evaluation that is a command of its own: Lightning would take it for done."""
        if trainer.state.fn != TrainerFn.FITTING:
            self.interruption.end_at_once()

    on_test_start = on_predict_start = on_validation_start

    def _within_update(self, trainer: Trainer, work: str, done: int, total: int) -> None:
        """Give up an update of which nothing has been learned yet, if a signal has come."""
        between = trainer.training and trainer.global_step == self._seen and not is_changing()
        if self.interruption.received is not None and between:
            if trainer.global_step > self._saved:
                self.save(trainer)
            self._end(trainer)

    def _end(self, trainer: Trainer) -> NoReturn:
        signal = self.interruption.received or "a signal"
        goes_on = f"saved after update {trainer.global_step}; the same command with --ckpt_path=last goes on."
        begins = "no update was done yet, and nothing is saved; the same command begins anew."
        raise Interrupted(f"{signal}: {goes_on if trainer.global_step else begins}", self.interruption.status)

    def _interrupted(self, trainer: Trainer) -> bool:
        """Say whether a signal has come to any process."""
        return trainer.strategy.reduce_boolean_decision(self.interruption.received is not None, all=False)
