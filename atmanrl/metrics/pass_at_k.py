"""pass@k: how often at least one of k sampled answers is right, estimated without bias from n >= k samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atmanrl.metrics.at_k import MeanAtK
from atmanrl.metrics.estimators import pass_at_k


class PassAtK(MeanAtK):
    """pass@k averaged over problems, for several k at once (see `MeanAtK`)."""

    name = "pass_at"

    def __init__(self, ks: Sequence[int] = (1, 4), **kwargs: Any) -> None:
        super().__init__(ks, **kwargs)

    def update(self, right: Tensor) -> None:
        """Adds some problems.

        Args:
            right: bool, shape [problems, samples]: which samples are right. The number of samples may differ
                between updates.

        Raises:
            ValueError: not a bool tensor of two dimensions, or fewer samples than the largest k.
        """
        if right.ndim != 2 or right.dtype != torch.bool:
            raise ValueError(f"expected bool [problems, samples], got {right.dtype} {list(right.shape)}")
        samples = right.shape[1]
        # Row c of the table is the estimate for c right answers.
        table = torch.tensor([[pass_at_k(samples, c, k) for k in self.ks] for c in range(samples + 1)])
        self.total += table.to(self.total)[right.sum(dim=1)].sum(dim=0)
        self.problems += right.shape[0]
