"""`UpdatingModule`: what happens with an update's experience: passes over it, minibatches, optimizer steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LRScheduler

from atmanrl.distributed import averaging, clip_gradients, processes
from atmanrl.grpo.evaluation import EvaluatingModule
from atmanrl.grpo.experience import Experience
from atmanrl.grpo.loss import Loss, LossInputs, MinibatchCounts, evaluate
from atmanrl.grpo.optimizers import refusals
from atmanrl.grpo.scoring import Scored, Scorer
from atmanrl.grpo.step_metrics import LossPart, OptimizerStep, step_metrics
from atmanrl.models.policy import Policy
from atmanrl.pulse import beat
from atmanrl.rewards import Reward


class UpdatingModule(EvaluatingModule):
    """Moves the policy by a few optimizer steps on one experience.

    Args:
        policy: the model.
        rewards: by name.
        evaluate_all_rewards: whether evaluation also calls rewards that run the policy.

    Attributes:
        loss: what a step minimizes.
        scorer: reads rollouts with the policy.
        num_iterations: passes over an experience.
        minibatch_queries: queries of one optimizer step, on each device.
        max_new_tokens: most tokens that a completion may have.
        max_grad_norm: gradients are clipped to this norm; None leaves them.
        seed: of the order of minibatches.
    """

    loss: Loss
    scorer: Scorer
    num_iterations: int
    minibatch_queries: int
    max_new_tokens: int
    max_grad_norm: float | None
    seed: int

    def __init__(self, policy: Policy, rewards: dict[str, Reward], evaluate_all_rewards: bool) -> None:
        super().__init__(policy, rewards, evaluate_all_rewards)
        self.automatic_optimization = False
        self._grad_norm = torch.zeros(())  # of the last optimizer step, before the gradient was clipped

    def _update(self, experience: Experience) -> dict[str, float]:
        """Pass over the rollouts of all processes, and return the metrics of the optimizer steps."""
        passes = (self._minibatches(experience, iteration) for iteration in range(self.num_iterations))
        # with nothing to learn there still is one step, without gradients, so that the update is counted
        minibatches = [rows for each in passes for rows in each] or [[]]
        last = len(minibatches) - 1
        steps = []
        for i, rows in enumerate(minibatches):
            beat("learning", i, len(minibatches))
            steps.append(self._optimizer_step(experience, rows, last=i == last))
        # as large as the weights, and of no use while rollouts are sampled and probed
        self._torch_optimizer().zero_grad(set_to_none=True)
        metrics = step_metrics(steps, self.loss.metric_names)
        metrics["lr"] = self._torch_optimizer().param_groups[0]["lr"]
        schedule = self.lr_schedulers()
        if isinstance(schedule, LRScheduler):
            with refusals("lr_scheduler"):
                schedule.step()
        return metrics

    def _minibatches(self, experience: Experience, iteration: int) -> list[list[int]]:
        seed = (self.seed * 1_000_003 + self.trainer.global_step) * 1_009 + iteration
        queries = self.minibatch_queries * processes().count
        return minibatches(experience.learning_groups, experience.batch.group_size, queries, seed)

    def _optimizer_step(self, experience: Experience, rows: list[int], last: bool) -> OptimizerStep:
        optimizer = self._torch_optimizer()
        optimizer.zero_grad()
        completions = [rollout.completion for rollout in experience.batch.rollouts]
        taught = [i for i in rows if completions[i].finished or not self.loss.mask_truncated_completions]
        tokens = sum(len(completions[i].ids) for i in taught)
        counts = MinibatchCounts(len(rows), max(tokens, 1), self.max_new_tokens)
        parts = []
        with averaging(self.trainer, self.policy.parameters()):
            for part in self.scorer.own_parts(experience.batch, taught):
                output = evaluate(self.loss, loss_inputs(experience, part, counts))
                # parts are summed, but gradients are averaged over the processes
                self.manual_backward(output.loss * processes().count)
                parts.append(LossPart(output, part.completion_mask, part.entropy))
        if last:
            # the one step of an update that Lightning counts, so that global_step counts updates
            self._lightning_optimizer().step()
        else:
            self.trainer.strategy.optimizer_step(optimizer, lambda: None, self)
        return OptimizerStep.of(parts, self._grad_norm, len(rows) - len(taught))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients, which `16-mixed` has scaled up to the backward pass, and unscaled just before this."""
        self._grad_norm = clip_gradients(self.policy.parameters(), self.max_grad_norm)

    def _lightning_optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return self._lightning_optimizer().optimizer


def minibatches(groups: Sequence[int], group_size: int, queries: int, seed: int) -> list[list[int]]:
    """Return the rows of the rollouts of `queries` full groups at a time, in an order drawn by the seed."""
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        [groups[k] * group_size + g for k in order[start : start + queries] for g in range(group_size)]
        for start in range(0, len(order), queries)
    ]


def loss_inputs(experience: Experience, part: Scored, counts: MinibatchCounts) -> LossInputs:
    """Return what a loss needs of some rollouts that the policy has just scored, on the policy's device."""

    def padded(values: Sequence[Tensor]) -> Tensor:
        return pad_sequence([values[i] for i in part.rows], batch_first=True).to(part.logprobs.device)

    advantages, reference = experience.advantages, experience.reference_logprobs
    return LossInputs(
        logprobs=part.logprobs,
        old_logprobs=padded(experience.old_logprobs),
        reference_logprobs=None if reference is None else padded(reference),
        # one for each completion, or one for each of its tokens
        advantages=advantages[part.rows].to(part.logprobs.device)
        if isinstance(advantages, Tensor)
        else padded(advantages),
        completion_mask=part.completion_mask,
        entropy=part.entropy,
        counts=counts,
    )
