"""`GRPOModule`: the outer loop. One training step is one update: rewards, advantages, and a few optimizer steps."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from atmanrl.distributed import averaging, build, clip_gradients, gathered, inference_copy, processes
from atmanrl.errors import UserError
from atmanrl.grpo.advantages import Scaling, group_advantages
from atmanrl.grpo.evaluation import EvaluatingModule
from atmanrl.grpo.figures import UpdateFigures, rollout_figures
from atmanrl.grpo.minibatches import ZeroSpread, learning_groups, minibatches
from atmanrl.grpo.objective import Aggregation, Importance, clipped_objective, normalizer
from atmanrl.grpo.optimizers import check_optimizer, paper_optimizer, refusals
from atmanrl.grpo.processes import exchange
from atmanrl.grpo.reference import Reference
from atmanrl.grpo.schedules import WarmupSchedule
from atmanrl.grpo.scoring import Scorer
from atmanrl.horizon import needed_updates
from atmanrl.policy import Policy, check_same
from atmanrl.rewards import OutcomeReward, Reward, score
from atmanrl.rollouts.batch import RolloutBatch


class GRPOModule(EvaluatingModule):
    """Trains the policy on rollouts by GRPO with any rewards.

    Optimization is manual. Steps, limits, schedules and checkpoints count updates: one batch of rollouts each, whatever
    the number of optimizer steps within. An update of `data.queries_per_device` queries makes `num_iterations` passes
    over minibatches of `minibatch_queries` (TRL's `steps_per_generation` is the number of minibatches in a pass), and
    a minibatch accumulates the gradient of as many forward passes as `micro_batch_tokens` asks for.

    Args:
        policy: the model to train.
        rewards: rewards by name; outcome alone by default.
        optimizer: a callable of the parameters.
        lr_scheduler: a callable of the optimizer, such as `WarmupSchedule`; it steps once an update. None leaves the
            learning rate as it is.
        num_iterations: passes over the rollouts of an update.
        minibatch_queries: queries of one optimizer step, on each device.
        micro_batch_tokens: most tokens, padding counted, in one forward pass of the update: memory, not the result.
        share_prompts: whether a minibatch reads a prompt once for all its rollouts, where the model allows it: time,
            not the result. Under FSDP2 an update never does (see `Scorer.dealt`).
        epsilon: clip range of the importance ratio below 1.
        epsilon_high: clip range above 1; None takes epsilon.
        beta: weight of the KL penalty against the policy that the run started from; at 0 no reference is kept.
        use_bias_correction_kl: whether the penalty is multiplied by the importance ratio, see `grpo.objective`.
        loss_type: aggregation over tokens, see `grpo.objective`.
        importance_sampling_level: `token` or `sequence`.
        scale_rewards: `none`, `group` or `batch`, see `grpo.advantages`.
        scale_rewards_floor: the least standard deviation that rewards are divided by.
        zero_spread_groups: `keep` or `drop` groups whose rewards are all equal, see `grpo.minibatches`.
        mask_truncated_completions: whether completions without an end count in advantages alone, and teach nothing.
        rescore: whether the old log-probabilities are computed again with the update's own forward pass. None does so
            where rollouts are sampled in less than float32, by the weights' dtype or in mixed precision: there the
            sampler's differ by up to 0.04.
        max_grad_norm: gradients are clipped to this norm; None leaves them.
        evaluate_all_rewards: whether evaluation also calls rewards that run the policy (the saliency reward).
        seed: of the order of minibatches.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(
        self,
        policy: Policy,
        rewards: dict[str, Reward] | None = None,
        optimizer: OptimizerCallable = paper_optimizer,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_iterations: int = 2,
        minibatch_queries: int = 2,
        micro_batch_tokens: int = 16384,
        share_prompts: bool = True,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        beta: float = 0.0,
        use_bias_correction_kl: bool = True,
        loss_type: Aggregation = "grpo",
        importance_sampling_level: Importance = "token",
        scale_rewards: Scaling = "none",
        scale_rewards_floor: float = 0.0,
        zero_spread_groups: ZeroSpread = "keep",
        mask_truncated_completions: bool = False,
        rescore: bool | None = None,
        max_grad_norm: float | None = 1.0,
        evaluate_all_rewards: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(policy, {"outcome": OutcomeReward()} if rewards is None else rewards, evaluate_all_rewards)
        self.automatic_optimization = False
        counts = {"num_iterations": num_iterations, "minibatch_queries": minibatch_queries}
        for name, count in {**counts, "micro_batch_tokens": micro_batch_tokens}.items():
            if count < 1:
                raise UserError(f"model.{name} is {count}; give at least 1.")
        if not 0 < epsilon < 1:
            raise UserError(f"model.epsilon is {epsilon}; give a number between 0 and 1.")
        if epsilon_high is not None and epsilon_high <= 0:
            raise UserError(f"model.epsilon_high is {epsilon_high}; give a number above 0, or null to take epsilon.")
        for name, value in {"beta": beta, "scale_rewards_floor": scale_rewards_floor}.items():
            if not 0 <= value < math.inf:
                raise UserError(f"model.{name} is {value}; give a number from 0.")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise UserError(
                f"model.max_grad_norm is {max_grad_norm}; give a norm above 0, or null to leave gradients as they are."
            )
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.num_iterations, self.minibatch_queries = num_iterations, minibatch_queries
        self.micro_batch_tokens, self.share_prompts = micro_batch_tokens, share_prompts
        self.loss_type: Aggregation = loss_type
        self.objective = partial(
            clipped_objective, epsilon=epsilon, epsilon_high=epsilon_high, aggregation=loss_type,
            level=importance_sampling_level, beta=beta, use_bias_correction_kl=use_bias_correction_kl,
        )  # fmt: skip
        self.scale_rewards: Scaling = scale_rewards
        self.scale_rewards_floor = scale_rewards_floor
        self.zero_spread_groups: ZeroSpread = zero_spread_groups
        self.mask_truncated_completions = mask_truncated_completions
        self.rescore, self.max_grad_norm, self.seed = rescore, max_grad_norm, seed
        self.reference = Reference() if beta else None
        self.scorer = Scorer(policy, 1.0, micro_batch_tokens, share_prompts)
        self.max_new_tokens, self.tokens_seen = 1024, 0
        self._norm = torch.zeros(())  # of the gradient of the last optimizer step, before it was clipped

    def configure_model(self) -> None:
        """Load the policy, sharded where the strategy is FSDP2, and what it starts from if it is to stay close to it."""
        build(self.policy, self)
        if self.reference is not None:
            self.reference.keep(self.policy, self)

    def setup(self, stage: str) -> None:
        """Take over what the data module decides: temperature, completion length, samples in evaluation."""
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.scorer = Scorer(self.policy, data.temperature, self.micro_batch_tokens, self.share_prompts)
        self.max_new_tokens = data.max_new_tokens

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer that was asked for, over the trainable parameters, and its schedule.

        Raises:
            UserError: an option that they refuse, or a schedule that is none by updates.
        """
        with refusals("optimizer"):
            optimizer = self.optimizer([p for p in self.policy.parameters() if p.requires_grad])
        check_optimizer(optimizer, self.trainer.precision)
        if self.lr_scheduler is None:
            return optimizer
        with refusals("lr_scheduler"):
            schedule = self.lr_scheduler(optimizer)
        if isinstance(schedule, ReduceLROnPlateau):
            raise UserError("model.lr_scheduler must be a schedule by updates; ReduceLROnPlateau waits for a figure.")
        if isinstance(schedule, WarmupSchedule) and schedule.total_updates is None and schedule.shape != "constant":
            schedule.total_updates = needed_updates(self.trainer, "model.lr_scheduler.total_updates or ")
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """One update."""
        began = time.perf_counter()
        with gathered(self.policy):  # once for both
            with inference_copy(self.policy):
                scores = score(self.rewards, batch, self.policy)
            rewarded = time.perf_counter()
            old = self._old_logprobs(batch)
        scores, old, reference = exchange(batch, scores, old, self._reference_logprobs(batch))
        for reward in self.rewards.values():
            scores.figures.update(reward.observe(batch))
        figures = self._update(batch, scores.total, old, reference)
        ended = time.perf_counter()
        self.tokens_seen += sum(len(r.prompt_ids) + len(r.completion.ids) for r in batch.rollouts)
        self.log_dict({
            **rollout_figures(batch, scores, self.scale_rewards), **scores.figures, **batch.figures, **figures,
            "num_tokens": float(self.tokens_seen), "step_time": batch.seconds + ended - began,
            "time/rollout": batch.seconds, "time/reward": rewarded - began, "time/update": ended - rewarded,
        })  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of tokens, and what rewards have learned."""
        checkpoint["tokens_seen"] = self.tokens_seen
        checkpoint["rewards"] = {name: reward.state_dict() for name, reward in self.rewards.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting tokens, and with what rewards have learned."""
        self.tokens_seen = checkpoint["tokens_seen"]
        for name, state in checkpoint.get("rewards", {}).items():
            if state and name in self.rewards:
                self.rewards[name].load_state_dict(state)
        if "state_dict" in checkpoint:  # which FSDP2 has loaded and compared already
            check_same(checkpoint["state_dict"], self.state_dict(), self.policy.path)

    def _update(
        self, batch: RolloutBatch, rewards: Tensor, old: list[Tensor], reference: list[Tensor] | None
    ) -> dict[str, float]:
        """All passes over the rollouts of all processes; the figures of their steps."""
        advantages = group_advantages(rewards, batch.group_size, self.scale_rewards, self.scale_rewards_floor)
        groups = learning_groups(rewards, batch.group_size, self.zero_spread_groups)
        figures = UpdateFigures()
        # with nothing to learn there still is one step, without gradients, so that the update is counted
        steps = [rows for i in range(self.num_iterations) for rows in self._minibatches(batch, groups, i)] or [[]]
        for number, rows in enumerate(steps, start=1):
            self._optimizer_step(batch, rows, advantages, old, reference, figures, last=number == len(steps))
        # as large as the weights, and of no use while rollouts are sampled and probed
        self._torch_optimizer().zero_grad(set_to_none=True)
        found = figures.of_everyone().means() | {"lr": self._torch_optimizer().param_groups[0]["lr"]}
        if self.reference is None:
            del found["kl"]
        if self.zero_spread_groups == "drop":
            found["groups_dropped"] = 1 - len(groups) * batch.group_size / len(batch)
        schedule = self.lr_schedulers()
        if isinstance(schedule, LRScheduler):
            with refusals("lr_scheduler"):
                schedule.step()
        return found

    def _old_logprobs(self, batch: RolloutBatch) -> list[Tensor]:
        """Each rollout's log-probabilities under the policy that sampled it."""
        if self.rescore or (self.rescore is None and self._samples_in_half_precision()):
            return self.scorer.logprobs(batch)
        return [torch.tensor(r.completion.logprobs) for r in batch.rollouts]

    def _samples_in_half_precision(self) -> bool:
        """Whether the sampler's log-probabilities would differ from the update's own by more than float32's rounding."""
        kinds = {weight.dtype for weight in self.policy.parameters()} | {self.policy.computed_in}
        return bool(kinds & {torch.bfloat16, torch.float16})

    def _reference_logprobs(self, batch: RolloutBatch) -> list[Tensor] | None:
        """Each rollout's log-probabilities under the reference policy, where there is one."""
        if self.reference is None:
            return None
        with self.reference.of(self.policy) as model:
            return self.scorer.logprobs(batch, model)

    def _minibatches(self, batch: RolloutBatch, groups: list[int], iteration: int) -> list[list[int]]:
        seed = (self.seed * 1_000_003 + self.trainer.global_step) * 1_009 + iteration
        return minibatches(groups, batch.group_size, self.minibatch_queries * processes().count, seed)

    def _optimizer_step(
        self, batch: RolloutBatch, rows: list[int], advantages: Tensor, old: list[Tensor],
        reference: list[Tensor] | None, figures: UpdateFigures, last: bool,
    ) -> None:  # fmt: skip
        optimizer = self._torch_optimizer()
        optimizer.zero_grad()
        taught = [i for i in rows if batch.rollouts[i].completion.finished or not self.mask_truncated_completions]
        tokens = sum(len(batch.rollouts[i].completion.ids) for i in taught)
        # gradients are averaged over the processes, so each divides by the mean of their counts
        divide_by = normalizer(self.loss_type, len(rows), tokens, self.max_new_tokens) / processes().count
        with averaging(self.trainer, self.policy.parameters()):
            for part in self.scorer.dealt(batch, taught):
                result = self.objective(
                    part.logprobs, self._padded(old, part.rows), advantages[part.rows].to(self.device), part.completion,
                    divide_by, reference=None if reference is None else self._padded(reference, part.rows),
                )  # fmt: skip
                self.manual_backward(result.loss)
                figures.add(result, part)
        if last:
            # the one step of an update that Lightning counts, so that global_step counts updates
            self._lightning_optimizer().step()
        else:
            self.trainer.strategy.optimizer_step(optimizer, lambda: None, self)
        figures.add_step(self._norm, len(rows) - len(taught))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients, which `16-mixed` has scaled up to the backward pass, and unscaled just before this."""
        self._norm = clip_gradients(self.policy.parameters(), self.max_grad_norm)

    def _padded(self, values: list[Tensor], rows: list[int]) -> Tensor:
        """`[B, C]` of some rollouts' values, 0 on padding."""
        return pad_sequence([values[i] for i in rows], batch_first=True).to(self.device)

    def _lightning_optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return self._lightning_optimizer().optimizer
