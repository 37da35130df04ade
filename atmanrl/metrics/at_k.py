"""What pass@k and majority@k have in common: a mean over problems, for several k at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import Column, at_k
from atmanrl.metrics.ratio import RatioMetric
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem, Task


class MeanAtK(RatioMetric):
    """A value of each problem, averaged over problems for several k at once; every problem weighs the same.

    `compute()` returns one float scalar (0 to 1) per k under `{name}_at_{k}`, NaN before the first problem.

    Args:
        ks: the values of k, distinct and at least 1; None leaves the choice to `default_ks`.
        stages: when it runs; see `RolloutMetric`.

    Attributes:
        name: such as `pass`.
        ks: the values of k in use.
        task: where the problems come from, None where `prepare` has not said.

    Raises:
        UserError: `ks` is empty, repeats a value or holds one below 1.
    """

    name: ClassVar[str]
    higher_is_better = True
    ks: tuple[int, ...] = ()
    task: Task | None = None

    def __init__(self, ks: Sequence[int] | None = None, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self._chosen = None if ks is None else tuple(ks)
        if ks is not None and (not ks or min(ks) < 1 or len(set(ks)) < len(ks)):
            raise UserError(f"{type(self).__name__}.ks must be distinct integers of at least 1, got {list(ks)}.")
        self.prepare(None, max(ks or (1,)))

    @staticmethod
    @abstractmethod
    def default_ks(samples: int) -> tuple[int, ...]:
        """Return the values of k for so many samples of each problem."""

    @abstractmethod
    def values(self, batch: RolloutBatch) -> Tensor:
        """Return the value of each problem of a batch for each k, shape `[problems, ks]`, 0 to 1."""

    def parts(self, problems: Sequence[Problem]) -> Mapping[str, Sequence[int]]:
        """Return parts of the problems that have means of their own besides that of all, with the places of each."""
        return {}

    def prepare(self, task: Task | None, samples: int) -> None:
        """Take over the task, and the number of samples of each problem.

        Raises:
            UserError: there are fewer samples than the largest k.
        """
        if self._chosen and max(self._chosen) > samples:
            raise UserError(
                f"{type(self).__name__}.ks has {max(self._chosen)}, but there are {samples} samples of a problem; give a "
                "smaller k, or more samples (data.eval_samples in evaluation, data.group_size in training)."
            )
        self.task, self.ks = task, self._chosen or self.default_ks(samples)
        super().prepare(task, samples)

    @property
    def columns(self) -> Mapping[str, Column]:  # type: ignore[override]
        """A column for each k."""
        return {key: column for k in self.ks for key, column in at_k(self.name, k).items()}

    @property
    def keys(self) -> Sequence[str]:
        """A key for each k, and for each k of each part: `math/pass_at_1`."""
        return [prefix + key for prefix in ("", *(f"{part}/" for part in self.parts([]))) for key in self.columns]

    def contributions(
        self, batch: RolloutBatch, policy: Policy | None = None
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        """Return each problem's value; to a part's mean other problems contribute nothing."""
        values = self.values(batch)
        contributions: dict[str, Tensor | tuple[Tensor, Tensor]] = dict(zip(self.columns, values.T, strict=True))
        for part, places in self.parts([group[0].problem for group in batch.groups]).items():
            inside = torch.zeros(len(values), dtype=torch.long)
            inside[list(places)] = 1
            for key, column in zip(self.columns, values.T, strict=True):
                contributions[f"{part}/{key}"] = column * inside, inside
        return contributions
