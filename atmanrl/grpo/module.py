"""`GRPOModule`: the outer loop. One training step is one update: rewards, advantages, and a few optimizer steps.

Where this departs from the paper (arXiv 2604.16158), or decides what the paper leaves open:

1. Saliency is 1 - mean(H/c), which is what the paper describes; its Eq. 3 prints mean(H/c), which rewards the opposite
   (`MaskProbe(orientation="printed")`).
2. The importance ratio is that of a token, as GRPO is implemented everywhere; Eq. 5 prints that of a sequence
   (`ClippedLoss(importance_sampling_level="sequence")`).
3. A reward that abstains, as saliency does without a delimiter, counts as min(0, the group's lowest value), so that leaving
   out the reasoning never pays.
4. The 8 queries of an update are 8 on each device (`data.queries_per_device`).
5. Gradients are clipped to a norm of 1, and there is no weight decay; the paper mentions neither.
6. The loss averages over a completion's tokens and then over completions (`loss_type="grpo"`), without a KL penalty
   (`beta=0`).
7. In half precision the old log-probabilities are computed again by the update's own forward pass (`rescore`), since the
   sampler's differ from it by more than rounding.
8. The paper's configurations solve masks by `AdaptiveSolver`, which follows the same path with fewer gradients and compares
   itself with the 200 steps as it runs; `solver: paper` takes the 200 steps.
9. Problems for validation are held out of the training split.
"""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from atmanrl.checkpoint.base_model import put_back_base
from atmanrl.checkpoint.reading import check_fits
from atmanrl.contention import watch
from atmanrl.distributed import build, gathered, inference_copy
from atmanrl.errors import UserError
from atmanrl.grpo.advantages import GroupAdvantages, Scaling, ZeroSpread
from atmanrl.grpo.credit import TokenCredit, token_credit
from atmanrl.grpo.experience import Experience, exchange
from atmanrl.grpo.loss import Loss
from atmanrl.grpo.loss_clipped import ClippedLoss
from atmanrl.grpo.optimizers import check_optimizer, paper_optimizer, refusals
from atmanrl.grpo.reference import Reference
from atmanrl.grpo.rollout_metrics import rollout_metrics
from atmanrl.grpo.schedules import WarmupSchedule
from atmanrl.grpo.scoring import Scorer
from atmanrl.grpo.update import UpdatingModule
from atmanrl.horizon import needed_updates
from atmanrl.models.policy import Policy
from atmanrl.pulse import changing
from atmanrl.rewards import OutcomeReward, Reward, Scores, score
from atmanrl.rollouts.batch import RolloutBatch


class GRPOModule(UpdatingModule):
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
        loss: what an optimizer step minimizes; None takes `ClippedLoss` as it is by default, the paper's.
        num_iterations: passes over the rollouts of an update.
        minibatch_queries: queries of one optimizer step, on each device.
        micro_batch_tokens: most tokens, padding counted, in one forward pass of the update: memory, not the result.
        share_prompts: whether a minibatch reads a prompt once for all its rollouts, where the model allows it: time,
            not the result. Under FSDP2 an update never does (see `Scorer.own_parts`).
        scale_rewards: `none`, `group` or `batch`, see `grpo.advantages`.
        scale_rewards_floor: the least standard deviation that rewards are divided by.
        credit: how a completion's advantage is shared out over its tokens: the name of a reward that gives values to single
            tokens, as `saliency` does, or a `TokenCredit` with its options. None gives all tokens the same.
        zero_spread_groups: `keep` or `drop` groups whose rewards are all equal, see `grpo.advantages`.
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
        loss: Loss | None = None,
        num_iterations: int = 2,
        minibatch_queries: int = 2,
        micro_batch_tokens: int = 16384,
        share_prompts: bool = True,
        scale_rewards: Scaling = "none",
        scale_rewards_floor: float = 0.0,
        credit: TokenCredit | str | None = None,
        zero_spread_groups: ZeroSpread = "keep",
        rescore: bool | None = None,
        max_grad_norm: float | None = 1.0,
        evaluate_all_rewards: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(policy, {"outcome": OutcomeReward()} if rewards is None else rewards, evaluate_all_rewards)
        counts = {"num_iterations": num_iterations, "minibatch_queries": minibatch_queries}
        for name, count in {**counts, "micro_batch_tokens": micro_batch_tokens}.items():
            if count < 1:
                raise UserError(f"model.{name} is {count}; give at least 1.")
        if not 0 <= scale_rewards_floor < math.inf:
            raise UserError(f"model.scale_rewards_floor is {scale_rewards_floor}; give a number from 0.")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise UserError(
                f"model.max_grad_norm is {max_grad_norm}; give a norm above 0, or null to leave gradients as they are."
            )
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.num_iterations, self.minibatch_queries = num_iterations, minibatch_queries
        self.micro_batch_tokens, self.share_prompts = micro_batch_tokens, share_prompts
        self.loss = ClippedLoss() if loss is None else loss
        self.advantages = GroupAdvantages(scale_rewards, scale_rewards_floor, zero_spread_groups)
        self.credit = token_credit(credit, self.rewards)
        self.rescore, self.max_grad_norm, self.seed = rescore, max_grad_norm, seed
        self.reference = Reference() if self.loss.uses_reference else None
        self.scorer = Scorer(policy, 1.0, micro_batch_tokens, share_prompts)
        self.max_new_tokens, self.tokens_seen = 1024, 0

    def configure_model(self) -> None:
        """Load the policy, sharded where the strategy is FSDP2, and what it starts from if it is to stay close to it."""
        build(self.policy, self)
        if self.reference is not None:
            self.reference.keep(self.policy, self)

    def setup(self, stage: str) -> None:
        """Take over what the data module decides: temperature and completion length."""
        super().setup(stage)
        watch()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.scorer = Scorer(self.policy, data.temperature, self.micro_batch_tokens, self.share_prompts)
        self.max_new_tokens = data.max_new_tokens

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer that was asked for, over the trainable parameters, and its schedule.

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
            raise UserError("model.lr_scheduler must be a schedule by updates; ReduceLROnPlateau waits for a metric.")
        if isinstance(schedule, WarmupSchedule) and schedule.total_updates is None and schedule.shape != "constant":
            schedule.total_updates = needed_updates(self.trainer, "model.lr_scheduler.total_updates or ")
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> dict[str, Experience]:
        """Make one update of the policy.

        Returns:
            The update's `experience`, for callbacks, which get it as their `outputs`.
        """
        began = time.perf_counter()
        with gathered(self.policy):  # once for both
            with inference_copy(self.policy):
                scores = score(self.rewards, batch, self.policy)
            rewarded = time.perf_counter()
            old = self.scorer.old_logprobs(batch, self.rescore)
        reference = None if self.reference is None else self.reference.logprobs(self.scorer, batch)
        with changing():
            return self._learned(batch, scores, old, reference, began, rewarded)

    def _learned(
        self, batch: RolloutBatch, scores: Scores, old: list[Tensor], reference: list[Tensor] | None, began: float,
        rewarded: float,
    ) -> dict[str, Experience]:  # fmt: skip
        """Learn from scored rollouts and log the update; what began when, in seconds of `time.perf_counter`."""
        experience = exchange(batch, scores, old, reference, self.advantages)
        observed: dict[str, float] = {}
        if self.credit is not None:
            observed |= self.credit.metrics(experience)
            experience = self.credit.share_out(experience)
        for reward in self.rewards.values():
            observed |= reward.observe(experience.batch)
        metrics = self._update(experience)
        ended, seconds = time.perf_counter(), experience.batch.seconds
        self.tokens_seen += experience.tokens
        self.log_dict({
            **rollout_metrics(experience, self.advantages), **experience.scores.metrics, **observed,
            **experience.batch.metrics, **metrics, "num_tokens": float(self.tokens_seen),
            "step_time": seconds + ended - began,
            "time/rollout": seconds, "time/reward": rewarded - began, "time/update": ended - rewarded,
        })  # fmt: skip
        return {"experience": experience}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of tokens, and what rewards have learned."""
        checkpoint["tokens_seen"] = self.tokens_seen
        checkpoint["rewards"] = {name: reward.state_dict() for name, reward in self.rewards.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting tokens, and with what rewards have learned."""
        if "state_dict" in checkpoint:  # which FSDP2 has compared and loaded already
            put_back_base(self.trainer.ckpt_path, checkpoint, self)
            check_fits(self.trainer.ckpt_path, checkpoint, self)
        self.tokens_seen = checkpoint["tokens_seen"]
        for name, state in checkpoint.get("rewards", {}).items():
            if state and name in self.rewards:
                self.rewards[name].load_state_dict(state)
