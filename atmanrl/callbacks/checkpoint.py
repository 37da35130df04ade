"""Checkpoints by updates."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from atmanrl.callbacks.run_logger import RunLogger, drop_updates_beyond
from atmanrl.checkpoint.files import checkpoint_name, checkpoints, put_in_place, set_aside_beyond
from atmanrl.checkpoint.interruption import Interruption
from atmanrl.checkpoint.random_state import random_state, restore_random_state
from atmanrl.checkpoint.reading import CheckpointError, CheckpointFile, check_fits
from atmanrl.checkpoint.resume import Resumption
from atmanrl.distributed import all_gather, processes
from atmanrl.errors import Interrupted, UserError
from atmanrl.io.files import remove, temporary_path


class RunCheckpoint(Checkpoint):
    """`checkpoints/update_00020.ckpt` every so many updates and at the end.

    `last.ckpt` is a link to the newest, for scripts; nothing here needs it, and a disk without links has none.

    A checkpoint is written when all of its update is: rollouts, figures, and the evaluation that follows it. So a run
    that goes on from it finds its log complete, whenever it was killed. It is written aside, flushed to the disk and
    renamed; older ones are removed after that.

    At SIGTERM or SIGUSR1 a checkpoint is written after the current update, and the run ends with status 75; at SIGINT
    (Ctrl-C) likewise, with status 130. Before training has begun, they end it at once.

    Args:
        every_n_updates: how often.
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
        self._resumption = Resumption()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checkpoints belong into the run's folder, are written straight to their files, and are looked at when read."""
        self.folder = Path(trainer.default_root_dir) / "checkpoints"
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = CheckpointFile(partial(self._check, module=pl_module))
        self._resumption = Resumption()
        self._resumption.note_callbacks(trainer)

    def _check(self, path: object, checkpoint: dict[str, Any], module: LightningModule) -> None:
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
        """Add whose it is, what was asked for, the random state, and where the loop stood when its update ended."""
        checkpoint["module"], checkpoint["asked"] = type(pl_module).__name__, self._resumption.asked
        checkpoint["loops"] = {**checkpoint["loops"], **self._standing}
        if trainer.world_size == 1:
            checkpoint["random"] = random_state()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear up what a killed run has left: the run writes anew what lies beyond its checkpoint.

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
        self._watch(trainer)

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
        """The last update is saved, whatever its number."""
        if trainer.global_step > self._saved:
            self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint of the current update; every process of the run calls this.

        Raises:
            CheckpointError: the disk is full, or cannot be written to; earlier checkpoints are as they were.
        """
        path = self.folder / checkpoint_name(trainer.global_step)
        temporary = all_gather(temporary_path(path))[0]  # the first process's, for all
        contents = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        self._together(self._make_folder, path, temporary)
        self._together(lambda *_: trainer.strategy.save_checkpoint(contents, temporary), path, temporary)
        self._together(self._put_in_place, path, temporary)
        self._saved = trainer.global_step
        if trainer.is_global_zero and self.keep != -1:
            for _, old in checkpoints(self.folder)[self.keep :]:
                remove(old)

    def _make_folder(self, path: Path, temporary: Path) -> None:
        if processes().rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)

    def _put_in_place(self, path: Path, temporary: Path) -> None:
        if processes().rank == 0:
            put_in_place(temporary, path)

    def _together(self, step: Callable[[Path, Path], None], path: Path, temporary: Path) -> None:
        """Take a step on every process; where the disk refuses it to one, all of them raise the error.

        So none is left waiting for another that has given up.
        """
        refused: OSError | None = None
        try:
            step(path, temporary)
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

    def _watch(self, trainer: Trainer) -> None:
        """Be told when all of an update is over: Lightning writes its figures, and validates, after its last hook."""
        loop = trainer.fit_loop.epoch_loop
        end = type(loop).on_advance_end

        def on_advance_end(data_fetcher: Any) -> None:
            end(loop, data_fetcher)
            self._update_ended(trainer)

        loop.on_advance_end = on_advance_end  # type: ignore[method-assign]

    def _update_ended(self, trainer: Trainer) -> None:
        if trainer.global_step == self._seen:
            return  # gradients of a step are still being gathered
        self._seen = trainer.global_step
        interrupted = self._interrupted(trainer)
        if interrupted or trainer.global_step % self.every_n_updates == 0:
            self.save(trainer)
        if interrupted:
            raise Interrupted(
                f"{self.interruption.received or 'a signal'}: saved after update {trainer.global_step}; the same command "
                "with --ckpt_path=last goes on.",
                self.interruption.status,
            )

    def _interrupted(self, trainer: Trainer) -> bool:
        """Whether a signal has come to any process."""
        return trainer.strategy.reduce_boolean_decision(self.interruption.received is not None, all=False)
