"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

ASIDE = ".part"
"""What the name of a file ends in while it is being written."""


@contextmanager
def made_aside(path: Path) -> Iterator[Path]:
    """Where to make a file or a folder, which takes the place of `path` when the block ends.

    If the block raises, what was made goes, and `path` stays as it was.
    """
    aside = path.with_name(path.name + ASIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(aside)
    try:
        yield aside
        if path.is_dir():  # which nothing can be moved onto
            remove(path)
        os.replace(aside, path)
    finally:
        remove(aside)


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` when the block ends, see `made_aside`."""
    with made_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def disks_own_errors() -> Iterator[None]:
    """Around `torch.save` into an open file: its writer, when it closes the archive, fails once more and hides the first.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def flush(path: Path) -> None:
    """Let the disk have all of a file, or of a folder and what is in it, so that it outlives a power failure."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def take_place(aside: Path, path: Path) -> None:
    """Move a finished file or folder to `path`, for good: the folder's entry is flushed, too."""
    os.replace(aside, path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
