"""pass@k: how often at least one of k sampled answers is right, estimated without bias from n >= k samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimator of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code", Eq. 1).

        pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

    It is the share of the k-subsets of the n samples that hold at least one right one. The product avoids the huge
    binomials; 1 - (1 - c/n)^k would be biased.

    Args:
        n: samples of one problem.
        c: how many of them are right, 0 <= c <= n.
        k: samples allowed, 1 <= k <= n.

    Returns:
        A probability, 0 to 1.

    Raises:
        ValueError: k or c out of its range.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem and k >= 1; there are {n} samples")
    if not 0 <= c <= n:
        raise ValueError(f"{c} right answers among {n} samples")
    if n - c < k:
        return 1.0
    wrong = 1.0
    for i in range(n - c + 1, n + 1):
        wrong *= 1.0 - k / i
    return 1.0 - wrong


class PassAtK(Metric):
    """pass@k averaged over problems, for several k at once; every problem weighs the same.

    `compute()` returns one float scalar (0 to 1) per k under `pass_at_{k}`, NaN before the first problem.

    Args:
        ks: the values of k, distinct and at least 1.

    Raises:
        ValueError: `ks` is empty, repeats a value or holds one below 1.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True
    passed: Tensor
    problems: Tensor

    def __init__(self, ks: Sequence[int] = (1, 4), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ks = tuple(ks)
        if not self.ks or min(self.ks) < 1 or len(set(self.ks)) < len(self.ks):
            raise ValueError(f"ks must be distinct integers of at least 1, got {list(self.ks)}")
        # float32, not 64: Apple's MPS has no float64, and sums of a few thousand shares lose nothing that shows.
        self.add_state("passed", default=torch.zeros(len(self.ks)), dist_reduce_fx="sum")
        self.add_state("problems", default=torch.tensor(0), dist_reduce_fx="sum")

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
        self.passed += table.to(self.passed)[right.sum(dim=1)].sum(dim=0)
        self.problems += right.shape[0]

    def compute(self) -> dict[str, Tensor]:
        """The mean over all problems seen, per k."""
        return {f"pass_at_{k}": passed / self.problems for k, passed in zip(self.ks, self.passed, strict=True)}
