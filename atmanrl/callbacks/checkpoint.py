"""Checkpoints by updates, and the trained policy as a Hugging Face folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from atmanrl.distributed import whole
from atmanrl.policy import Policy


class RunCheckpoint(ModelCheckpoint):
    """`checkpoints/update_00020.ckpt` every so many updates and at the end, and `last.ckpt` beside it.

    Args:
        every_n_updates: how often.
        keep: how many of the newest are kept; -1 keeps all.
    """

    def __init__(self, every_n_updates: int = 20, keep: int = 1) -> None:
        super().__init__(
            filename="update_{step:05d}", auto_insert_metric_name=False, every_n_train_steps=every_n_updates,
            save_last=True, save_top_k=keep, monitor="step" if keep != 1 else None, mode="max", enable_version_counter=False,
        )  # fmt: skip

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checkpoints belong into the run's folder."""
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last update is saved, whatever its number."""
        super().on_train_end(trainer, pl_module)
        if trainer.global_step > self._last_global_step_saved:
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)


class PolicyExport(Callback):
    """Writes `policy/` in Hugging Face format when training ends.

    Args:
        dtype: of the exported weights; None keeps that of the training.
    """

    def __init__(self, dtype: str | None = None) -> None:
        self.dtype = dtype

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write aside, then take the place of an older export."""
        policy = getattr(pl_module, "policy", None)
        if not isinstance(policy, Policy):
            return
        policy = whole(policy)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "policy"
        aside = folder.with_name("policy.part")
        shutil.rmtree(aside, ignore_errors=True)
        policy.save(aside, self.dtype)
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
