"""The checkpoints in a run's folder: their names, which of them are whole, and how a finished one takes its place."""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from pathlib import Path

from atmanrl.checkpoint.reading import CheckpointError
from atmanrl.io.files import flush, remove, remove_leftovers, take_place, temporary_path
from atmanrl.notes import say

MANIFEST = "manifest.json"
"""In a sharded checkpoint, a folder: the size of each of its files in bytes."""
SET_ASIDE = ".stale"
"""What is appended to the name of a checkpoint that is not of this run any more, or is damaged."""
LAST = "last.ckpt"
"""A link to the newest checkpoint, where the disk has links; `checkpoint_path` does without."""
_NAME = re.compile(r"update_(\d+)\.ckpt")


def checkpoint_name(update: int) -> str:
    """Return the name of an update's checkpoint."""
    return f"update_{update:05d}.ckpt"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return updates and checkpoints of a folder, newest first. What is being written has another name."""
    named = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("update_*.ckpt")]
    return sorted(((int(match[1]), path) for path, match in named if match), reverse=True)


def checkpoint_path(path: Path) -> Path:
    """Return the path of a checkpoint; `last.ckpt` is the newest whole one of its folder where the disk has no links.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    if path.name == LAST and not path.exists() and path.parent.is_dir():
        return newest_whole(path.parent) or path
    return path


def write_manifest(folder: Path) -> None:
    """Write down the sizes of all files of a sharded checkpoint, so that a missing or shortened one is noticed."""
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / MANIFEST).write_text(json.dumps(sizes, indent=2) + "\n", encoding="utf-8")


def damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint; None if nothing is.

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
    """Return the newest checkpoint that is whole, if there is any, and say which are passed over, and why.

    Raises:
        CheckpointError: there are checkpoints, and none is whole.
    """
    everything = checkpoints(folder)
    for _, path in everything:
        wrong = damage(path)
        if wrong is None:
            return path
        say(f"{path} is damaged ({wrong}); the one before is taken.")
    if everything:
        raise CheckpointError(
            f"none of the {len(everything)} checkpoints in {folder} is whole; copy them anew, or begin another run with "
            "another --trainer.default_root_dir."
        )
    return None


def put_in_place(temporary: Path, path: Path) -> None:
    """Let a finished checkpoint take its place, for good, and `last.ckpt` lead to it."""
    if temporary.is_dir():
        write_manifest(temporary)
    flush(temporary)
    remove(path)
    take_place(temporary, path)
    link_last(path)


def link_last(path: Path) -> None:
    """Let `last.ckpt` lead to a checkpoint of its folder, in one stroke."""
    last = path.with_name(LAST)
    temporary = temporary_path(last)
    try:
        temporary.symlink_to(path.name)
    except OSError:  # exFAT and SMB have no links: better no `last.ckpt` than an old one
        remove(last)
        return
    if last.is_dir() and not last.is_symlink():
        remove(last)
    os.replace(temporary, last)


def set_aside_beyond(folder: Path, update: int) -> None:
    """Remove what was being written, and set aside checkpoints beyond the update at which a run goes on."""
    remove_leftovers(folder)
    everything = checkpoints(folder)
    for number, path in everything:
        if number > update:
            aside = path.with_name(path.name + SET_ASIDE)
            remove(aside)
            path.rename(aside)
            say(f"{path} lies beyond update {update}, at which the run goes on: it is now {aside.name}.")
    kept = [path for number, path in everything if number <= update]
    if kept and len(kept) < len(everything):
        link_last(kept[0])
