"""One sweep a folder, on one machine."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from atmanrl.sweep.space import SweepError


@contextmanager
def locked(path: Path, patience: float = 10.0) -> Iterator[int]:
    """One sweep a folder. Trials inherit the lock: where they cannot be made to die with a killed sweep they keep it.

    Raises:
        SweepError: another process holds it, and still does after `patience` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise SweepError(
                        f"{path.parent}: another sweep, or a trial of a killed one, still runs here; wait for it."
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
