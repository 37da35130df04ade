"""Whose a folder is: a command marks what it fills, refuses what others have written, and keeps a second process out.

A mark is a small file, `.atmanrl-COMMAND`. A folder without one is a stranger's: nothing in it is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from atmanrl.io.files import FileError, atomic_write, writable_folder


def mark_path(folder: Path, command: str) -> Path:
    """Return the file by which `atmanrl COMMAND` knows a folder of its own."""
    return folder / f".atmanrl-{command}"


def lock_path(folder: Path, command: str) -> Path:
    """The file that a process of `atmanrl COMMAND` locks while it is at work in a folder."""
    return folder / f".atmanrl-{command}.lock"


def is_marked(folder: Path, command: str) -> bool:
    """Return whether `atmanrl COMMAND` has marked a folder as its own."""
    return mark_path(folder, command).is_file()


def mark(folder: Path, command: str) -> None:
    """Mark a folder, which is made where it is missing, as one that `atmanrl COMMAND` fills."""
    if not is_marked(folder, command):
        with atomic_write(mark_path(folder, command)) as file:
            file.write(
                f"`atmanrl {command}` has made this, and may replace it. Remove this file to keep what is here.\n"
            )


def check_fillable(folder: Path, command: str, names: Iterable[str]) -> None:
    """Refuse a folder in which a command would replace what it has not written. Other files in it do not matter.

    Args:
        folder: need not exist.
        command: which is about to write there.
        names: of all files and folders that it may write.

    Raises:
        FileError: `folder` is a file or a link that leads nowhere, or holds one of `names` and is not the command's.
    """
    writable_folder(folder)
    taken = [name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
    if taken and not is_marked(folder, command):
        raise FileError(
            f"{folder} holds {', '.join(taken)}, which `atmanrl {command}` has not made; choose another folder."
        )


def check_replaceable(folder: Path, command: str) -> None:
    """Refuse to replace a whole folder that a command has not made.

    Raises:
        FileError: `folder` is a file, a link that leads nowhere, or a folder with something in it and not the command's.
    """
    target = writable_folder(folder)
    if target.is_dir() and any(target.iterdir()) and not is_marked(target, command):
        raise FileError(f"{folder} was not made by `atmanrl {command}`; move it away, or choose another folder.")


@contextmanager
def locked(folder: Path, command: str, patience: float = 0.0) -> Iterator[None]:
    """Keep a second process of a command out of a folder, which is made where it is missing.

    The operating system releases the lock of a process that ends, however it ends.

    Raises:
        FileError: another process holds it, and still does after `patience` seconds.
    """
    writable_folder(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path(folder, command))
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise FileError(
            f"another `atmanrl {command}` is at work in {folder}; wait for it, or choose another folder."
        ) from None
    try:
        yield
    finally:
        lock.release()
