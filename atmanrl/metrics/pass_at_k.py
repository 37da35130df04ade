"""pass@k: how often at least one of k sampled answers is right, estimated without bias from n >= k samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atmanrl.metrics.at_k import MeanAtK
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem
from atmanrl.tasks.mixture import by_task


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the unbiased estimate of Chen et al. 2021 ("Evaluating Large Language Models Trained on Code", Eq. 1).

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


class PassAtK(MeanAtK):
    """pass@k averaged over problems, for several k at once (see `MeanAtK`): for 1 and for all samples by default.

    Of a mixture of tasks it gives each task's, too: `math/pass_at_1`, NaN for a task without problems.
    """

    name = "pass"

    @staticmethod
    def default_ks(samples: int) -> tuple[int, ...]:
        """Return 1 and the number of samples."""
        return tuple(sorted({1, samples}))

    def parts(self, problems: Sequence[Problem]) -> Mapping[str, Sequence[int]]:
        """Return the tasks of a mixture."""
        return by_task(self.task, problems)

    def values(self, batch: RolloutBatch) -> Tensor:
        """Estimate pass@k of each problem.

        Raises:
            ValueError: there are fewer samples than the largest k.
        """
        correct = torch.tensor([[bool(rollout.correct) for rollout in group] for group in batch.groups])
        # Row c of the table is the estimate for c right answers.
        samples = batch.group_size
        table = torch.tensor([[pass_at_k(samples, c, k) for k in self.ks] for c in range(samples + 1)])
        return table[correct.sum(dim=1)]
