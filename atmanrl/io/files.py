"""Write files and folders whole or not at all, and delete nothing that is not ours on the way.

What is being written has a temporary name beside its target, which nothing else bears: `.atmanrl-tmp-`, random digits and
the target's name. A target of the wrong kind (a folder where a file is wanted, a link that leads nowhere) is refused.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from atmanrl.errors import UserError

TEMPORARY = ".atmanrl-tmp-"
"""What the name of a file begins with while it is being written."""
_TEMPORARY_NAME = re.compile(rf"{re.escape(TEMPORARY)}[0-9a-f]{{16}}-(.*)", re.DOTALL)


class FileError(UserError):
    """A path cannot be written to as it is asked; the message names it and says what to do."""


def user_path(text: str) -> Path:
    """Return a path that a user has typed; `~` is the home folder also where the shell has left it."""
    return Path(os.path.expanduser(text))  # which, unlike Path's own, leaves an unknown user's alone


def temporary_path(path: Path) -> Path:
    """Return a new name in the same folder for what will become `path`; nobody else has names of that kind."""
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}-{_short(path.name)}")


def final_path(path: Path) -> Path:
    """Return what a temporary path stands for, to be named in an error; any other path is itself."""
    match = _TEMPORARY_NAME.fullmatch(path.name)
    return path.with_name(match[1]) if match else path


def remove_leftovers(folder: Path, *targets: str) -> None:
    """Remove what a killed process was writing in a folder.

    Args:
        folder: whose files nobody else writes at present.
        targets: names of files and folders that were to be written; without any, all of them.
    """
    names = set(map(_short, targets))
    for path in folder.glob(f"{TEMPORARY}*"):
        match = _TEMPORARY_NAME.fullmatch(path.name)
        if match and (not names or match[1] in names):
            remove(path)


@contextmanager
def atomic_write(path: Path) -> Iterator[TextIO]:
    """Open a text file that takes the place of `path` when the block ends, see `atomic_file`."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which takes the place of `path` when the block ends.

    If the block raises, what was written is removed, and `path` stays as it was. A link stays and the file that it leads
    to is replaced; a device or a pipe (`/dev/stdout`) is written to as it is. Missing folders are made.

    Raises:
        FileError: `path` is a folder, or a link that leads nowhere.
        OSError: it cannot be written to; the error names `path`.
    """
    target = writable_file(path)
    if target.exists() and not target.is_file():
        yield target
        return
    temporary = temporary_path(target)
    try:
        with errors_name(path, temporary):
            writable_folder(target.parent).mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, target)
    finally:
        remove(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a new folder to fill, which takes the place of `path` when the block ends.

    Whether an older folder may be replaced is the caller's to ask before: see `atmanrl.io.folders`. If the block raises, it
    stays as it was. Where `path` is a link to a folder, the link stays.

    Raises:
        FileError: `path` is a file, or a link that leads nowhere.
        OSError: it cannot be written to; the error names `path`.
    """
    target = writable_folder(path)
    temporary, old = temporary_path(target), temporary_path(target)
    try:
        with errors_name(path, temporary):
            temporary.mkdir(parents=True)
            yield temporary
            if target.is_dir():  # nothing can be moved onto a folder with files in it
                os.replace(target, old)
            try:
                os.replace(temporary, target)
            except OSError:
                if old.exists():
                    os.replace(old, target)
                raise
    finally:
        remove(temporary)
        remove(old)


def writable_file(path: Path) -> Path:
    """Return where a file is really written: the end of a link.

    Raises:
        FileError: `path` is a folder, or a link that leads nowhere.
    """
    target = _followed(path)
    if target.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file.")
    return target


def writable_folder(path: Path) -> Path:
    """Return where a folder is really filled: the end of a link.

    Raises:
        FileError: `path` is a file, or a link that leads nowhere.
    """
    target = _followed(path)
    if target.exists() and not target.is_dir():
        raise FileError(f"{path} is a file; give the name of a folder.")
    return target


def _short(name: str) -> str:
    # the names of files end at 255 bytes, which 40 characters cannot reach
    return name if len(os.fsencode(name)) < 200 else name[-40:]


def _followed(path: Path) -> Path:
    if not path.is_symlink():
        return path
    if not path.exists():
        raise FileError(
            f"{path} is a link to {os.readlink(path)}, which is not there; remove it, or give another name."
        )
    # links such as /dev/stdout lead to what has no name of its own
    return path.resolve() if path.is_file() or path.is_dir() else path


@contextmanager
def errors_name(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let errors of the disk name what the user asked for: writing into an open file raises them without a name.

    Args:
        path: what they are to name.
        temporary: what is written in its place, a name that is gone by the time the error is read.
    """
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and error.errno not in (None, errno.EPIPE)
        if nameless or (temporary is not None and str(error.filename).startswith(str(temporary))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


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
        _fsync(each)


def take_place(temporary: Path, path: Path) -> None:
    """Move a finished file or folder to `path`, for good: the folder's entry is flushed, too."""
    os.replace(temporary, path)
    _fsync(path.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network disks (SMB) have no way to flush a folder; a file that cannot be flushed is an error everywhere
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode) or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # unlike `unlink`, no error where a part of the path is a file
        path.unlink(missing_ok=True)


def shown_path(path: str) -> str:
    """Return a path as pages show it: without the folders of the machine that wrote them.

    An absolute path is its last name, with the folder's before it where the name is `policy`, as in every run's folder;
    a relative one, or a name on the hub, stays as it is.
    """
    whole = Path(path)
    if not whole.is_absolute():
        return path
    return "/".join(whole.parts[-2 if whole.name == "policy" and len(whole.parts) > 2 else -1 :])
