"""A notice, once, where other work has the cores and torch's threads wait for one another.

Threads of one matrix product wait for the slowest of them, and spin meanwhile. Where other processes want the same cores,
each such wait lasts until the scheduler has run everybody: two threads were forty times slower than one, under a load of
eight on two cores. Linux tells for each thread how long it ran, and how long it could have run but waited for a core
(`/proc/self/task/*/schedstat`). Time asleep is neither: waiting for a GPU, for data or for a network does not count.
Where the kernel does not tell, nothing is noticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from atmanrl.cores import THREADS, usable_cores
from atmanrl.notes import say
from atmanrl.pulse import listen, stop_listening

SECONDS = 15.0
"""Length of the window that is judged: a shorter disturbance is none."""
WAITING = 0.3
"""Share of the time in which threads can run that they wait for a core, from which on the cores are contended."""
TOGETHER = 1.25
"""Threads that can run at a time, on average, from which on they may wait for one another."""
TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Reading:
    """Seconds since some moment.

    Attributes:
        clock: on the wall.
        running: that all threads of the process ran, together.
        waiting: that they could have run and waited for a core.

    Example:
        Of two threads that had a tenth of a core each: `Reading(clock=8.0, running=1.6, waiting=14.4)`
    """

    clock: float
    running: float
    waiting: float

    @classmethod
    def now(cls) -> Reading | None:
        """Read the kernel's counts; None where it has none."""
        running = waiting = 0
        for path in TASKS.glob("*/schedstat"):
            try:
                ran, waited, _ = map(int, path.read_text().split())
            except (OSError, ValueError):  # the thread has just ended
                continue
            running, waiting = running + ran, waiting + waited
        return cls(time.monotonic(), running / 1e9, waiting / 1e9) if running else None

    def __sub__(self, other: Reading) -> Reading:
        return Reading(self.clock - other.clock, self.running - other.running, self.waiting - other.waiting)

    @property
    def contended(self) -> bool:
        """Whether several threads could run most of the time, and waited for cores for much of it."""
        ready = self.running + self.waiting
        return ready >= TOGETHER * self.clock and self.waiting >= WAITING * ready


class Watch:
    """Listens to the pulse of sampling, probing and learning, and says once that the cores are contended.

    Args:
        read: gives the counts.
        threads: gives torch's number of threads; a single one waits for no other.
        load: gives the machine's load average.
        cores: gives the cores that the process may use.
    """

    def __init__(
        self,
        read: Callable[[], Reading | None] = Reading.now,
        threads: Callable[[], int] = torch.get_num_threads,
        load: Callable[[], float] = lambda: os.getloadavg()[0],
        cores: Callable[[], int] = usable_cores,
    ) -> None:
        self.read, self.threads, self.load, self.cores = read, threads, load, cores
        self.began: Reading | None = None
        self.looked = -SECONDS

    def beat(self, work: str, done: int = 0, total: int = 0) -> None:
        """Look at the counts every `SECONDS`, and judge what has passed since the last look."""
        now = time.monotonic()
        if now - self.looked < SECONDS or self.threads() < 2:
            return
        self.looked, before, self.began = now, self.began, self.read()
        if before is not None and self.began is not None and (passed := self.began - before).contended:
            say(self.notice(work, passed))
            stop_listening(self.beat)

    def notice(self, work: str, passed: Reading) -> str:
        """Return what was seen, and what to set."""
        threads, cores, load = self.threads(), self.cores(), self.load()
        others = max(0.0, load - (passed.running + passed.waiting) / passed.clock)
        wanted = cores if cores < threads else min(threads - 1, max(1, round(cores - others)))
        return (
            f"other work has the cores: in {passed.clock:.0f} s of {work} this process ran for {passed.running:.0f} s, and "
            f"its {threads} threads waited {passed.waiting:.0f} s for a core (load {load:.1f}, {cores} to be used); threads "
            f"that wait for one another may take many times as long as one. Set {THREADS}={wanted}, or call "
            f"torch.set_num_threads({wanted})."
        )


_WATCH = Watch()
_watched = False


def watch() -> None:
    """Begin to watch, if this process does not yet."""
    global _watched
    if not _watched:
        _watched = True
        listen(_WATCH.beat)
