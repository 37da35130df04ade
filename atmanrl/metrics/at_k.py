"""What pass@k and majority@k have in common: a mean over problems, for several k at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.metrics.columns import Column, at_k
from atmanrl.tasks import Task


class MeanAtK(RolloutMetric):
    """A value of each problem, averaged over problems for several k at once; every problem weighs the same.

    `compute()` returns one float scalar (0 to 1) per k under `{name}_at_{k}`, NaN before the first problem.

    Args:
        ks: the values of k, distinct and at least 1; None leaves the choice to `default_ks`.
        stages: when it runs; see `RolloutMetric`.

    Attributes:
        name: such as `pass`.

    Raises:
        UserError: `ks` is empty, repeats a value or holds one below 1.
    """

    higher_is_better = True
    name: ClassVar[str]
    total: Tensor
    problems: Tensor

    def __init__(self, ks: Sequence[int] | None = None, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self._chosen = None if ks is None else tuple(ks)
        if ks is not None and (not ks or min(ks) < 1 or len(set(ks)) < len(ks)):
            raise UserError(f"{type(self).__name__}.ks must be distinct integers of at least 1, got {list(ks)}.")
        self.task: Task | None = None
        self._size(self._chosen or self.default_ks(1))

    @staticmethod
    @abstractmethod
    def default_ks(samples: int) -> tuple[int, ...]:
        """The values of k for so many samples a problem."""

    def parts(self) -> Sequence[str]:
        """Names of parts of the problems that have a mean of their own, besides that of all of them."""
        return ()

    def prepare(self, task: Task | None, samples: int) -> None:
        """Take over the task, and the samples of each problem.

        Raises:
            UserError: they are fewer than the largest k.
        """
        self.task = task
        if self._chosen and max(self._chosen) > samples:
            raise UserError(
                f"{type(self).__name__}.ks has {max(self._chosen)}, but there are {samples} samples of a problem; give a "
                "smaller k, or more samples (data.eval_samples in evaluation, data.group_size in training)."
            )
        self._size(self._chosen or self.default_ks(samples))

    @property
    def columns(self) -> Mapping[str, Column]:  # type: ignore[override]
        """One for each k."""
        return {key: column for k in self.ks for key, column in at_k(self.name, k).items()}

    def add(self, values: Tensor, part: str | None = None) -> None:
        """Count some problems.

        Args:
            values: of each problem and k, shape [problems, ks].
            part: whose problems they are; None for the mean over all.
        """
        row = 0 if part is None else 1 + list(self.parts()).index(part)
        self.total[row] += values.to(self.total).sum(dim=0)
        self.problems[row] += len(values)

    def compute(self) -> dict[str, Tensor]:
        """The mean over all problems counted, per k; those of parts after it, as `{part}/{name}_at_{k}`."""
        names = ["", *(f"{part}/" for part in self.parts())]
        return {
            f"{prefix}{self.name}_at_{k}": total / problems
            for prefix, totals, problems in zip(names, self.total, self.problems, strict=True)
            for k, total in zip(self.ks, totals, strict=True)
        }

    def _size(self, ks: tuple[int, ...]) -> None:
        self.ks, rows = ks, 1 + len(self.parts())
        # float32, not 64: Apple's MPS has no float64, and sums of a few thousand shares lose nothing that shows.
        self.add_state("total", default=torch.zeros(rows, len(ks)), dist_reduce_fx="sum")
        self.add_state("problems", default=torch.zeros(rows, dtype=torch.long), dist_reduce_fx="sum")
