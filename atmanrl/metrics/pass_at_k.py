"""pass@k: how often at least one of k sampled answers is right, estimated without bias from n >= k samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from atmanrl.metrics.at_k import MeanAtK
from atmanrl.metrics.estimators import pass_at_k
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks.mixture import by_task


class PassAtK(MeanAtK):
    """pass@k averaged over problems, for several k at once (see `MeanAtK`): for 1 and for all samples by default.

    Of a mixture of tasks it gives each task's, too: `math/pass_at_1`, NaN for a task without problems.
    """

    name = "pass"

    @staticmethod
    def default_ks(samples: int) -> tuple[int, ...]:
        """1 and all samples."""
        return tuple(sorted({1, samples}))

    def parts(self) -> Sequence[str]:
        """The tasks of a mixture."""
        return tuple(by_task(self.task, []))

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Count a batch's problems.

        Raises:
            ValueError: they have fewer samples than the largest k.
        """
        right = torch.tensor([[bool(rollout.correct) for rollout in group] for group in batch.groups])
        # Row c of the table is the estimate for c right answers.
        samples = batch.group_size
        table = torch.tensor([[pass_at_k(samples, c, k) for k in self.ks] for c in range(samples + 1)])
        values = table[right.sum(dim=1)]
        self.add(values)
        for part, places in by_task(self.task, [group[0].problem for group in batch.groups]).items():
            self.add(values[places], part)
