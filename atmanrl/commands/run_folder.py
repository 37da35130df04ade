"""A run's folder: it holds one run, one process works in it, and its `config.yaml` says what ran."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from atmanrl.checkpoint.resume import note_changes
from atmanrl.commands.errors import mendable
from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write, remove, remove_leftovers
from atmanrl.io.folders import check_fillable, is_marked, lock_path, locked, mark, mark_path
from atmanrl.io.run_layout import COMMAND, EVALUATIONS, check_free
from atmanrl.notes import say


class RunFolder(SaveConfigCallback):
    """Guards a run's folder: only the command that goes on with a run touches anything of it.

    `config.yaml` is written when the first update begins, once everything that can be refused has been accepted; if that
    update fails, the folder is left as it was.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **options: Any) -> None:
        super().__init__(parser, config, **options)
        self.folder, self.updates = Path(), 0
        self._written, self._before = False, b""
        self._lock = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the folder for this command, before anything is written there.

        Raises:
            UserError: another process trains there, it holds a run that this command does not go on with or an evaluation
                of another command, or it cannot be written to. Every process of the run raises it.
        """
        self.folder = Path(trainer.default_root_dir)
        refusal = None
        if trainer.is_global_zero:
            command = TrainerFn(stage).value
            try:
                if command == COMMAND:
                    if not lock_path(self.folder, COMMAND).exists():
                        self._check()  # so that a folder that is refused is left without a lock
                    self._lock.enter_context(locked(self.folder, COMMAND))
                    self._check()
                    self._remove_leftovers()
                elif not is_marked(self.folder, COMMAND):
                    check_fillable(self.folder, command, EVALUATIONS[command])
            except (UserError, OSError) as error:
                refusal = mendable(error)
        refusal = trainer.strategy.broadcast(refusal)
        if refusal is not None:
            self._lock.close()
            raise UserError(refusal)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark a folder that holds an evaluation and no run."""
        command = trainer.state.fn
        if trainer.is_global_zero and command and command != COMMAND and not is_marked(self.folder, COMMAND):
            mark(self.folder, command.value)

    on_test_start = on_predict_start = on_validation_start

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:  # fmt: skip
        """Write the config, once: by now all that is loaded has been checked."""
        if trainer.is_global_zero and not self._written:
            path = self.folder / self.config_filename
            self._before = path.read_bytes() if path.exists() else b""
            self._written = True
            mark(self.folder, COMMAND)
            config = self.parser.dump(self.config, skip_unset=False)
            with atomic_write(path) as file:
                file.write(config)
            if self._before and trainer.global_step:
                note_changes(self.folder, trainer.global_step, self._before.decode("utf-8", "replace"), config)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count an update: from the first on the config stays."""
        self.updates += 1

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where nothing was left to do."""
        if not self.updates:
            say(
                f"the run in {self.folder} is done already, after update {trainer.global_step} of {trainer.max_steps}; a "
                "larger --trainer.max_steps goes on with it."
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the folder as it was, if the first update failed."""
        if self._written and not self.updates:
            path = self.folder / self.config_filename
            if self._before:
                path.write_bytes(self._before)
            else:
                remove(path)
                remove(mark_path(self.folder, COMMAND))
        self._lock.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the folder back."""
        self._lock.close()

    def _check(self) -> None:
        check_free(self.folder, self.config.get("ckpt_path"))

    def _remove_leftovers(self) -> None:
        """Remove what a process was writing that is dead now, since the lock is this one's."""
        remove_leftovers(
            self.folder, self.config_filename, "metrics.csv", "policy", mark_path(self.folder, COMMAND).name
        )
        for name in ("checkpoints", "rollouts", "eval"):
            remove_leftovers(self.folder / name)


def recorded_date(folder: Path) -> str | None:
    """Return the date of a run's chat template, as its `config.yaml` notes it; None where it does not."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    options: Any = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    for key in ("model", "init_args", "policy", "init_args", "chat_template_date"):
        options = options.get(key) if isinstance(options, dict) else None
    return None if options is None else str(options)
