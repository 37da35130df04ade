"""The processor cores that this process may use, and how several processes divide them. No torch here."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
TOPOLOGY = Path("/sys/devices/system/cpu")
THREADS = "OMP_NUM_THREADS"
"""The variable that torch takes its number of threads from."""


def usable_cores() -> int:
    """Return how many cores the process may use: by its affinity, and by the quota of its container (cgroup).

    Two hardware threads of one core count once, for they share its arithmetic.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
    else:
        cpus = list(range(os.cpu_count() or 1))
    cores = len({_read(TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in cpus})
    return max(1, int(min(cores, cpu_quota(CGROUPS))))


def cpu_quota(root: Path) -> float:
    """Return the cores that a container may use on average; infinity where nothing limits it.

    Args:
        root: where control groups are mounted, of version 1 or 2.
    """
    own = [line.split(":", 2)[2].strip("/") for line in _read(Path("/proc/self/cgroup")).splitlines() if ":" in line]
    quotas = [math.inf]
    for path in {"", *own}:
        pair = _read(root / path / "cpu.max").split()
        pair = pair or [_read(root / "cpu" / path / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        if len(pair) == 2 and pair[0].isdigit() and pair[1].isdigit():  # else it is `max`, or -1
            quotas.append(int(pair[0]) / int(pair[1]))
    return min(quotas)


def shared_environment(jobs: int) -> dict[str, str]:
    """Return the environment of one of `jobs` processes that run at a time: each takes its share of the cores.

    A single process is left its own choice, and so is the user: a number of threads that is set already stays.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment.setdefault(THREADS, str(max(1, usable_cores() // jobs)))
    return environment


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another kernel has no such file
        return ""
