"""What a run's memory and time depend on, read off the objects that `fit` would train with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn

from atmanrl.distributed import FSDP2Strategy
from atmanrl.errors import UserError, first_line
from atmanrl.grpo import GRPOModule
from atmanrl.grpo.optimizers import check_optimizer, refusals
from atmanrl.models.policy import LoRA
from atmanrl.models.precision import check_precision
from atmanrl.rewards import Reward, SaliencyReward
from atmanrl.rollouts import HFSampler, RolloutDataModule
from atmanrl.sft import SFTDataModule, SFTModule

WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
ADAMW_MOMENTS = 2.0
NO_LIMIT = 1 << 60
"""Tokens of a pass where nothing bounds them."""


@dataclass(frozen=True)
class ProbeSettings:
    """A mask probe of the run, see `probe.MaskProbe`.

    Attributes:
        gradients: of each rollout's mask; the evaluation at the end is counted as one.
        batch_tokens: tokens of one forward pass.
        mask_copies: tensors of the masks' size that the solver holds.
        share: the part of an update's groups that is probed.

    Example:
        `ProbeSettings(gradients=201.0, batch_tokens=4096, mask_copies=5)`
    """

    gradients: float
    batch_tokens: int
    mask_copies: int
    share: float = 1.0

    @classmethod
    def of(cls, reward: SaliencyReward) -> ProbeSettings:
        """Read them off a reward and its probe."""
        probe, solver = reward.probe, reward.probe.solver
        return cls(solver.expected_gradients() + 1, probe.batch_tokens, solver.mask_copies, reward.draw.share)


@dataclass(frozen=True)
class RunSettings:
    """A training run.

    Attributes:
        path: of the policy.
        queries: of an update on each device; examples of a step in the warm start.
        group: rollouts of a query; 1 in the warm start.
        max_new_tokens: longest completion; 0 in the warm start, which samples none.
        num_iterations: passes over an update's rollouts.
        minibatch_queries: of one optimizer step on each device.
        micro_batch_tokens: of one forward pass of the update.
        lora: adapters, or None.
        weight_bytes: of a weight as it is kept.
        compute_bytes: of a number in a matrix product.
        sharded: whether weights, gradients and optimizer are sharded over the devices (FSDP2).
        by_layer: whether sharded weights are gathered layer by layer, and not as a copy of the model.
        checkpointing: activation checkpointing.
        moments: tensors of the weights' size that the optimizer keeps.
        reference: whether a reference model is kept (KL).
        reinforcement: rollouts and GRPO; False for the supervised warm start.
        probes: of the saliency rewards.
        share_prompts: whether the update reads a prompt once for all of its rollouts.
        static_cache: whether the sampler's cache is preallocated.
        rescore: whether the old log-probabilities are computed again.
        max_steps: updates, or -1.
        max_epochs: over the training problems, or -1.
        problems: to train on, None if not known.
        val_interval: updates between evaluations, or a share of `val_epochs` epochs; 0 for none.
        val_epochs: see `val_interval`.
        val_problems: of an evaluation.
        eval_samples: of each of them.
        eval_queries: answered at once.
        evaluate_all_rewards: whether an evaluation probes its rollouts, too.
        notes: what of the run is left out of the plan.

    Example:
        `RunSettings("Qwen/Qwen2.5-0.5B", queries=8, group=8, max_new_tokens=1024, num_iterations=2, minibatch_queries=2,
        micro_batch_tokens=2048, compute_bytes=2, max_steps=100)`
    """

    path: str
    queries: int
    group: int
    max_new_tokens: int
    num_iterations: int
    minibatch_queries: int
    micro_batch_tokens: int
    lora: LoRA | None = None
    weight_bytes: int = 4
    compute_bytes: int = 4
    sharded: bool = False
    by_layer: bool = False
    checkpointing: bool = False
    moments: float = ADAMW_MOMENTS
    reference: bool = False
    reinforcement: bool = True
    probes: tuple[ProbeSettings, ...] = ()
    share_prompts: bool = False
    static_cache: bool = False
    rescore: bool = False
    max_steps: int = -1
    max_epochs: int = -1
    problems: int | None = None
    val_interval: int | float = 0
    val_epochs: int = 1
    val_problems: int = 0
    eval_samples: int = 1
    eval_queries: int = 1
    evaluate_all_rewards: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def minibatches(self) -> int:
        """Optimizer steps of a pass over an update's rollouts."""
        return math.ceil(self.queries / self.minibatch_queries)

    @property
    def rollouts(self) -> int:
        """Of an update on each device."""
        return self.queries * self.group

    def epoch_updates(self, devices: int) -> int | None:
        """Return the updates of an epoch, or None where the number of problems is not known.

        Raises:
            UserError: there are too few problems for one.
        """
        if self.problems is None:
            return None
        if self.problems < self.queries * devices:
            raise UserError(
                f"{devices} devices with {self.queries} queries each need {devices * self.queries} problems for an "
                f"update; there are {self.problems}."
            )
        return self.problems // (self.queries * devices)

    def updates(self, devices: int) -> int | None:
        """Return the updates of the run, by steps or by epochs, whichever ends first; None if neither is known."""
        limits = [self.max_steps] if self.max_steps >= 0 else []
        if self.max_epochs >= 0 and (epoch := self.epoch_updates(devices)) is not None:
            limits.append(self.max_epochs * epoch)
        return min(limits, default=None)

    def val_every(self, devices: int) -> int | None:
        """Return the updates between evaluations; None where there are none, or the length of an epoch is not known."""
        if isinstance(self.val_interval, int):
            return self.val_interval * self.val_epochs or None
        epoch = self.epoch_updates(devices)
        return None if epoch is None else max(1, int(epoch * self.val_interval)) * self.val_epochs


def settings_of(module: LightningModule, data: LightningDataModule, trainer: Trainer, strategy: object) -> RunSettings:
    """Read the settings off the objects of a run, before anything is loaded.

    Args:
        module: a GRPOModule or an SFTModule, or a subclass.
        data: what feeds it.
        trainer: whose limits and intervals are read; its devices are not.
        strategy: the run's.

    Raises:
        UserError: the run is of a kind that is not planned, or `fit` would refuse it.
    """
    if isinstance(module, GRPOModule) and isinstance(data, RolloutDataModule):
        return _grpo(module, data, trainer, strategy)
    if isinstance(module, SFTModule) and isinstance(data, SFTDataModule):
        return _sft(module, data, trainer, strategy)
    raise UserError(
        f"model and data are {type(module).__name__} and {type(data).__name__}; plans are made for GRPOModule with "
        "RolloutDataModule, and for SFTModule with SFTDataModule."
    )


def _grpo(module: GRPOModule, data: RolloutDataModule, trainer: Trainer, strategy: object) -> RunSettings:
    if data.task is None:
        raise UserError("`fit` samples from the live policy: give data.task instead of data.traces.")
    probes, notes = _probes(module.rewards), _notes(module.rewards, data)
    common = _common(module, data, trainer, strategy, notes)
    if trainer.limit_val_batches:
        # a float is a share of an epoch, and None counts over the ends of epochs
        common |= {"val_interval": trainer.val_check_interval, "val_epochs": trainer.check_val_every_n_epoch or 1}
    return RunSettings(
        **common, queries=data.queries_per_device, group=data.group_size, max_new_tokens=data.max_new_tokens,
        num_iterations=module.num_iterations, minibatch_queries=module.minibatch_queries,
        micro_batch_tokens=module.micro_batch_tokens, reference=module.reference is not None, probes=probes,
        share_prompts=module.share_prompts and not common["sharded"],
        # `auto` is dynamic where a model permits nothing else, and then takes less
        static_cache=isinstance(data.sampler, HFSampler) and data.sampler.cache != "dynamic",
        rescore=common["compute_bytes"] < 4 if module.rescore is None else module.rescore,
        eval_samples=data.eval_samples, eval_queries=data.eval_queries,
        evaluate_all_rewards=module.evaluate_all_rewards,
    )  # fmt: skip


def _sft(module: SFTModule, data: SFTDataModule, trainer: Trainer, strategy: object) -> RunSettings:
    return RunSettings(
        **_common(module, data, trainer, strategy, []), reinforcement=False, queries=data.batch_size, group=1,
        max_new_tokens=0, num_iterations=1, minibatch_queries=data.batch_size, micro_batch_tokens=NO_LIMIT,
    )  # fmt: skip


def _common(
    module: GRPOModule | SFTModule, data: RolloutDataModule | SFTDataModule, trainer: Trainer, strategy: object,
    notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    policy = module.policy
    precision = check_precision(trainer.precision, policy.dtype_name, policy.lora is None)
    weight = WIDTHS[policy.dtype_name]
    size = data.task.size("train") if data.task is not None else None
    return {
        "path": policy.path, "lora": policy.lora, "weight_bytes": weight,
        "compute_bytes": 2 if precision.endswith("-mixed") else weight,
        "sharded": isinstance(strategy, FSDP2Strategy),
        "by_layer": isinstance(strategy, FSDP2Strategy) and strategy.gather == "layer",
        "checkpointing": policy.activation_checkpointing,
        "moments": _moments(module, precision, notes), "max_steps": trainer.max_steps,
        "max_epochs": _max_epochs(trainer),
        "problems": None if size is None else size - data.val_problems, "val_problems": data.val_problems,
        "notes": notes,
    }  # fmt: skip


def _max_epochs(trainer: Trainer) -> int:
    """Return Lightning's limit, which is 1000 where nothing else ends a run."""
    if trainer.max_epochs is not None:
        return trainer.max_epochs
    ends = trainer.max_steps != -1 or any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return -1 if ends else 1000


def _moments(module: GRPOModule | SFTModule, precision: str, notes: list[str]) -> float:
    """Return how many tensors of the weights' size the optimizer keeps, by a step on a small matrix."""
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.ones_like(weight)
    with refusals("optimizer"):
        optimizer = module.optimizer([weight])
    check_optimizer(optimizer, precision)
    try:
        optimizer.step()
    except (RuntimeError, AssertionError) as error:
        notes.append(
            f"{type(optimizer).__name__}, which takes no step on a CPU ({first_line(error)}), is counted as AdamW"
        )
        return ADAMW_MOMENTS
    state = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor) and value.ndim]
    return sum(value.nbytes for value in state) / weight.nbytes


def _probes(rewards: dict[str, Reward]) -> tuple[ProbeSettings, ...]:
    return tuple(ProbeSettings.of(reward) for reward in rewards.values() if isinstance(reward, SaliencyReward))


def _notes(rewards: dict[str, Reward], data: RolloutDataModule) -> list[str]:
    """Return what the plan leaves out of rewards and rollouts."""
    notes = []
    for name, reward in rewards.items():
        if not isinstance(reward, SaliencyReward):
            if reward.uses_policy:
                notes.append(f"what the reward {name} has the policy compute ({type(reward).__name__})")
            continue
        if reward.probe.attribution is not None:
            notes.append(f"the attribution of the reward {name}, which is counted as the paper's mask")
        if reward.only_where is not None:
            notes.append(f"only_where of the reward {name}, which is counted as probing every rollout")
    if not isinstance(data.sampler, HFSampler):
        notes.append(
            f"the engine of {type(data.sampler).__name__}, which is counted as HFSampler, run by the policy itself"
        )
    if data.resample_zero_spread:
        notes.append("data.resample_zero_spread, which samples some groups more than once")
    if data.too_long == "drop":
        notes.append("data.too_long, which leaves out some problems")
    return notes
