"""pass@k: how often at least one of k sampled answers is right, estimated without bias from n >= k samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atmanrl.metrics.at_k import MeanAtK
from atmanrl.metrics.estimators import pass_at_k
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Problem
from atmanrl.tasks.mixture import by_task


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
