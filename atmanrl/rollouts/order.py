"""In which order problems are asked, and by which process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch.utils.data import DistributedSampler

from atmanrl.distributed import Processes
from atmanrl.tasks import Problem

ALONE = Processes(0, 1)


def digest(problems: Iterable[Problem]) -> str:
    """Return a digest of which problems there are, in this order."""
    digested = hashlib.sha256()
    for problem in problems:
        digested.update(repr((problem.id, problem.question)).encode("utf-8", "surrogatepass"))
    return digested.hexdigest()[:16]


class EpochOrder(DistributedSampler[int]):
    """A permutation for each epoch, by seed and epoch alone; after a restart it goes on where the run stood.

    An update takes the next problems of the permutation, the first process the first of them, and so on: the update is
    the same on any number of processes. What does not fill an update is left out. It keeps its full length after a
    restart, so that the trainer's count of batches stays correct. (A `DistributedSampler`, so that Lightning leaves it.)

    Args:
        size: of the dataset.
        seed: of the permutations.
        done: how many updates of the epoch a restarted run has behind it.
        among: the processes; each: problems of an update on each of them.
    """

    def __init__(self, size: int, seed: int, done: Callable[[], int], among: Processes = ALONE, each: int = 1) -> None:
        self.size, self.seed, self.done, self.among, self.each = size, seed, done, among, each
        self.updates = size // (each * among.count)
        self.epoch = 0

    def __len__(self) -> int:
        return self.updates * self.each

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.size, generator=generator).tolist()
        whole = self.each * self.among.count
        for update in range(self.done(), self.updates):
            start = update * whole + self.among.rank * self.each
            yield from order[start : start + self.each]


class Block(DistributedSampler[int]):
    """This process's block of a dataset, in order; nothing is answered twice to make blocks equal."""

    def __init__(self, size: int, among: Processes) -> None:
        self.indices, self.epoch = among.block(size), 0

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
