"""The checkpoints in a run's folder: which of them are whole, how one is written, whether it fits a model."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO

from atmanrl.distributed.checkpoint import CheckpointError, unreadable
from atmanrl.io.files import disks_own_errors
from atmanrl.notes import say

MANIFEST = "manifest.json"
"""In a sharded checkpoint, a folder: the size of each of its files in bytes."""
SET_ASIDE = ".stale"
"""What is appended to the name of a checkpoint that is not of this run any more, or is damaged."""
LAST = "last.ckpt"
"""A link to the newest checkpoint, where the disk has links; `checkpoint_path` does without."""
_NAME = re.compile(r"update_(\d+)\.ckpt")


def checkpoint_name(update: int) -> str:
    """The name of an update's checkpoint."""
    return f"update_{update:05d}.ckpt"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Updates and checkpoints of a folder, newest first. What is being written has another name."""
    found = [(int(match[1]), path) for path in folder.glob("update_*.ckpt") if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def checkpoint_path(path: Path) -> Path:
    """The path of a checkpoint; `last.ckpt` is the newest whole one of its folder where the disk has no links.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    if path.name == LAST and not path.exists() and path.parent.is_dir():
        return newest_whole(path.parent) or path
    return path


def write_manifest(folder: Path) -> None:
    """Note the sizes of all files of a sharded checkpoint, so that a missing or shortened one is noticed."""
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None.

    Of a single file (a zip archive) every part is compared with its checksum, which reads all of it once; of a sharded
    one, the files' sizes are compared with its manifest.
    """
    if path.is_dir():
        return _damage_of_shards(path)
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"the checksum of its part {bad} is wrong"


def _damage_of_shards(folder: Path) -> str | None:
    try:
        sizes: dict[str, int] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    for name, size in sizes.items():
        if not (folder / name).is_file():
            return f"its file {name} is missing"
        if (folder / name).stat().st_size != size:
            return f"its file {name} has {(folder / name).stat().st_size} bytes instead of {size}"
    return None


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; says which are passed over, and why.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    found = checkpoints(folder)
    for _, path in found:
        wrong = damage(path)
        if wrong is None:
            return path
        say(f"{path} is damaged ({wrong}); the one before is taken.")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is whole; copy them anew, or begin another run with "
            "another --trainer.default_root_dir."
        )
    return None


def check_fits(path: object, checkpoint: dict[str, Any], module: LightningModule) -> None:
    """Refuse a checkpoint of another model before anything of it is loaded.

    Raises:
        CheckpointError: it names the first weight that differs.
    """
    advice = (
        "name the model that it was made of (--model.policy.path, and --model.policy.lora), or another --ckpt_path."
    )
    of = checkpoint.get("module")
    if of not in (None, type(module).__name__):
        raise CheckpointError(f"{path} is a checkpoint of {of}, this run trains {type(module).__name__}: {advice}")
    theirs, ours = checkpoint.get("state_dict", {}), module.state_dict()
    for name, weight in ours.items():
        if name not in theirs:
            raise CheckpointError(f"{path} is of another model, it has no {name}: {advice}")
        if theirs[name].shape != weight.shape:
            shapes = f"{name} has shape {list(theirs[name].shape)} there and {list(weight.shape)} here"
            raise CheckpointError(f"{path} is of another model, {shapes}: {advice}")
    for name in theirs:
        if name not in ours:
            raise CheckpointError(f"{path} is of another model, which has {name} besides: {advice}")


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint straight into its file, and reads it as nothing but tensors and plain values.

    Lightning's own first makes the whole file in memory, and then writes it to another folder, from which it cannot be
    moved at one stroke if that is another disk.

    Args:
        check: is given path and contents of every checkpoint that is read, before they are used.
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
        try:
            found: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise unreadable(path, error) from error
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} is no checkpoint: it holds a {type(found).__name__}.")
        self.check(path, found)
        return found
