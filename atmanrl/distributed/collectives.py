"""What processes tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: its number, from 0.
        count: of all processes.
    """

    rank: int
    count: int

    def share(self, size: int) -> range:
        """This process's block of `size` things: blocks differ by one at most and follow each other by rank."""
        return range(size * self.rank // self.count, size * (self.rank + 1) // self.count)


def processes() -> Processes:
    """The running processes; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes(0, 1)


def all_gather(mine: T) -> list[T]:
    """What each process holds, in order of rank. All must call it; the objects are pickled."""
    count = processes().count
    if count == 1:
        return [mine]
    theirs: list[T] = [mine] * count
    dist.all_gather_object(theirs, mine)
    return theirs
