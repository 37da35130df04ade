"""Disks without room, and disks that refuse."""

import errno
import io
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 1 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


REFUSALS = {errno.EFBIG: "is larger than", errno.ENOSPC: "no space is left", errno.EROFS: "can be read only"}
"""What a disk answers, and what is said of it."""


def refuse(monkeypatch, call: str, number: int, below: os.PathLike[str]) -> None:
    """Let a call of the operating system that writes below a folder fail.

    Args:
        monkeypatch: pytest's.
        call: `os.mkdir`, `os.replace`, `os.fsync` or `open`, for writing.
        number: of the error.
        below: the folder; all else goes on as it does.
    """
    module, name = (os, call.removeprefix("os.")) if call.startswith("os.") else (io, call)
    real = getattr(module, name)

    def path_of(target: object) -> str:
        return os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.fspath(target)

    def refusing(target, *args, **options):
        writes = name != "open" or set(str(options.get("mode", args[0] if args else "r"))) & set("wax+")
        if writes and path_of(target).startswith(os.fspath(below)):
            named = () if isinstance(target, int) else (path_of(target),)
            raise OSError(number, os.strerror(number), *named)
        return real(target, *args, **options)

    monkeypatch.setattr(module, name, refusing)
