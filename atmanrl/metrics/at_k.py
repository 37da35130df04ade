"""What pass@k and majority@k have in common: a mean over problems, for several k at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanAtK(Metric):
    """A figure of each problem, averaged over problems for several k at once; every problem weighs the same.

    `compute()` returns one float scalar (0 to 1) per k under `{name}_{k}`, NaN before the first problem.

    Args:
        ks: the values of k, distinct and at least 1.

    Attributes:
        name: of the figure, such as `pass_at`.

    Raises:
        ValueError: `ks` is empty, repeats a value or holds one below 1.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    name: ClassVar[str]
    total: Tensor
    problems: Tensor

    def __init__(self, ks: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ks = tuple(ks)
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ValueError(f"ks must be distinct integers of at least 1, got {list(self.ks)}")
        # float32, not 64: Apple's MPS has no float64, and sums of a few thousand shares lose nothing that shows.
        self.add_state("total", default=torch.zeros(len(self.ks)), dist_reduce_fx="sum")
        self.add_state("problems", default=torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> dict[str, Tensor]:
        """The mean over all problems seen, per k."""
        return {f"{self.name}_{k}": total / self.problems for k, total in zip(self.ks, self.total, strict=True)}
