"""What processes tell each other, and which of them this one is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    Example:
        `Processes(rank=1, count=4)`
    """

    rank: int
    count: int

    def block(self, size: int) -> range:
        """Return this process's block of `size` items: blocks differ by one at most and follow each other by rank."""
        return range(size * self.rank // self.count, size * (self.rank + 1) // self.count)


def processes() -> Processes:
    """Return this process among the running ones; rank 0 of 1 without a process group."""
    if dist.is_available() and dist.is_initialized():
        return Processes(dist.get_rank(), dist.get_world_size())
    return Processes(0, 1)


_SERVING: list[Callable[[], None]] = []


@contextmanager
def serving(serve: Callable[[], None]) -> Iterator[None]:
    """Let a process help the others by `serve` before it meets them in another collective, see `meet`, within the context.

    Args:
        serve: returns when no process needs help any more. It is called on all processes.
    """
    _SERVING.append(serve)
    try:
        yield
    finally:
        _SERVING.remove(serve)


def meet() -> None:
    """Wait until no process needs the others' help any more. All must call it before a collective within `gathered`."""
    for serve in _SERVING:
        serve()


def all_gather(value: T) -> list[T]:
    """Return what each process holds, in order of rank. All must call it; the objects are pickled."""
    count = processes().count
    if count == 1:
        return [value]
    meet()
    values: list[T] = [value] * count
    dist.all_gather_object(values, value)
    return values
