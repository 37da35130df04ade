"""Peak memory of a piece of work, on Linux."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path


def _status(field: str) -> int:
    """A figure of this process in KiB: VmRSS is its memory now, VmHWM the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def peak_mib(work: Callable[[], object]) -> float:
    """MiB that `work` needed at its worst above what the process held before it."""
    gc.collect()
    # memory that was freed and kept would be used again, and what an earlier work needed would be missing here
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # what was highest before is forgotten
    before = _status("VmRSS")
    work()
    # the kernel adds pages up per core, and is a few off at any time
    return max(0, _status("VmHWM") - before) / 1024
