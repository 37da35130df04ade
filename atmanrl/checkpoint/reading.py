"""Read a checkpoint of one file without running code that came with it, and compare it with what a run expects."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from atmanrl.errors import UserError, first_line
from atmanrl.io.files import disks_own_errors
from atmanrl.models.weights import UNSAFE, difference


class CheckpointError(UserError):
    """A checkpoint cannot be written, read, or loaded into this model; the message says what to do."""


def read_file(path: Path, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint of one file to the CPU, as nothing but tensors and plain values.

    Args:
        path: of the file.
        mapped: whether its tensors stay on disk until they are used.

    Raises:
        CheckpointError: it is damaged, would run code, or is something else.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=mapped, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = UNSAFE if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(checkpoint).__name__}.")
    return checkpoint


def check_fits(path: object, checkpoint: Mapping[str, Any], module: nn.Module) -> None:
    """Refuse a checkpoint of something else before anything of it is loaded.

    Args:
        path: of the checkpoint, for the message.
        checkpoint: its contents; of weights, names and shapes are looked at.
        module: the LightningModule that is to go on from it.

    Raises:
        CheckpointError: it is no run's, another LightningModule's, or another model's; the first weight that differs is
            named.
    """
    if "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of a run: it holds no state_dict.")
    advice = (
        "name the model that it was made of (--model.policy.path, and --model.policy.lora), or another --ckpt_path."
    )
    trained, trains = checkpoint.get("module"), type(module).__name__
    if trained not in (None, trains):
        raise CheckpointError(f"{path} is a checkpoint of {trained}, this run trains {trains}: {advice}")
    if differs := difference(checkpoint["state_dict"], module.state_dict()):
        raise CheckpointError(f"{path} is of another model ({differs}): {advice}")


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint straight into its file, and reads it by `read_file`.

    Lightning's own first makes the whole file in memory, and then writes it to another folder, from which it cannot be
    moved in one stroke if that is another disk.

    Args:
        check: is called with path and contents of every checkpoint that is read, before they are used.
    """

    def __init__(self, check: Callable[[object, dict[str, Any]], None]) -> None:
        self.check = check

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write it.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("wb") as file, disks_own_errors():
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """Read it, without ever running code that came with it.

        Raises:
            CheckpointError: there is none, it is damaged, or it does not fit.
        """
        if Path(path).is_dir():
            raise CheckpointError(
                f"{path} is a sharded checkpoint, which --trainer.strategy=fsdp2 alone reads; for any other make it one "
                f"file: atmanrl export --ckpt {path} --out NAME.ckpt"
            )
        checkpoint = read_file(path)
        self.check(path, checkpoint)
        return checkpoint
