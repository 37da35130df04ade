"""The trained policy as a Hugging Face folder, when training ends."""

from __future__ import annotations

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from atmanrl.distributed import unsharded
from atmanrl.io.files import atomic_folder
from atmanrl.io.folders import check_replaceable, mark
from atmanrl.io.run_layout import POLICY
from atmanrl.models.policy import Policy, PolicyError


class PolicyExport(Callback):
    """Writes `policy/` in Hugging Face format when training ends.

    Args:
        dtype: of the exported weights; None keeps that of the training.
    """

    def __init__(self, dtype: str | None = None) -> None:
        self.dtype = dtype

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a new folder, then let it take the place of an older export.

        Raises:
            FileError: `policy` in the run's folder was not written by a run.
            PolicyError: the disk is full, or cannot be written to; the checkpoint of the last update is written by then.
        """
        policy = getattr(pl_module, "policy", None)
        if not isinstance(policy, Policy):
            return
        policy = unsharded(policy)
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / POLICY
        check_replaceable(folder, "fit")
        try:
            with atomic_folder(folder) as temporary:
                policy.save(temporary, self.dtype)
                mark(temporary, "fit")
        except PolicyError as error:
            raise PolicyError(f"{error}. The checkpoints are whole: make room, then `atmanrl export` one.") from error
