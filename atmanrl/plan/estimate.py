"""A run's memory by part, time by phase, tokens and GPU-hours: the formulas put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atmanrl.errors import UserError
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.peaks import memory_by_phase
from atmanrl.plan.settings import RunSettings
from atmanrl.plan.shape import ModelShape
from atmanrl.plan.times import seconds_by_phase

USABLE = 0.92
"""Share of a device's memory that a plan may fill: the rest is the context, fragments and the libraries' workspaces."""


@dataclass
class Plan:
    """What was found; bytes and seconds are for one device.

    Attributes:
        memory_by_part: bytes; they are not all there at the same time.
        peak_by_phase: bytes at the worst moment of each phase, all of `resident` counted.
        resident: bytes that are there all the time.
        seconds_by_phase: of one update.
        updates: of the whole run, None if not known.
        tokens_per_update: prompts and completions, over all devices.
    """

    model: ModelShape
    settings: RunSettings
    hardware: Hardware
    lengths: Lengths
    memory_by_part: dict[str, float]
    peak_by_phase: dict[str, float]
    resident: float
    seconds_by_phase: dict[str, float]
    updates: int | None
    tokens_per_update: float

    @property
    def peak(self) -> float:
        """Bytes at the worst moment."""
        return max(self.peak_by_phase.values())

    @property
    def fits(self) -> bool:
        """Whether that is within what can be used of a device."""
        return self.peak <= USABLE * self.hardware.memory_bytes

    @property
    def update_seconds(self) -> float:
        """Of one update, evaluation shared out."""
        return sum(self.seconds_by_phase.values())

    @property
    def run_seconds(self) -> float | None:
        """Of the whole run."""
        return None if self.updates is None else self.updates * self.update_seconds

    @property
    def gpu_hours(self) -> float | None:
        """Of the whole run, over all devices."""
        return None if self.run_seconds is None else self.run_seconds / 3600 * self.hardware.devices

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model.as_dict(),
            "devices": self.hardware.devices,
            "memory_bytes": self.hardware.memory_bytes,
            "memory_by_part_bytes": self.memory_by_part,
            "peak_by_phase_bytes": self.peak_by_phase,
            "resident_bytes": self.resident,
            "peak_bytes": self.peak,
            "fits": self.fits,
            "advice": advice(self),
            "seconds_by_phase": self.seconds_by_phase,
            "seconds_per_update": self.update_seconds,
            "updates": self.updates,
            "tokens_per_update": self.tokens_per_update,
            "tokens": None if self.updates is None else self.updates * self.tokens_per_update,
            "hours": None if self.run_seconds is None else self.run_seconds / 3600,
            "gpu_hours": self.gpu_hours,
            "notes": self.settings.notes,
        }


def plan(model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths) -> Plan:
    """Memory and time of a run.

    Memory is that of the longest completions that may come, time that of the average ones.

    Raises:
        UserError: what `fit` would refuse: too few problems for so many devices, a warm start on more than one.
    """
    if not settings.reinforcement and hardware.devices > 1:
        raise UserError("the supervised warm start runs on one process; give --devices 1.")
    if settings.reinforcement and 0 < settings.val_problems < hardware.devices:
        raise UserError(
            f"data.val_problems gives {settings.val_problems} problems to {hardware.devices} devices: some would have none "
            "to answer. Give more of them, or take fewer devices."
        )
    parts, peaks, resident = memory_by_phase(model, settings, hardware, lengths)
    updates = _updates(settings, hardware.devices)
    tokens = hardware.devices * settings.rollouts * (lengths.prompt + lengths.completion)
    seconds = seconds_by_phase(model, settings, hardware, lengths)
    return Plan(model, settings, hardware, lengths, parts, peaks, resident, seconds, updates, tokens)


def _updates(settings: RunSettings, devices: int) -> int | None:
    """By `max_steps`, or by epochs where the number of problems is known; the earlier of both."""
    found = [settings.max_steps] if settings.max_steps >= 0 else []
    if settings.max_epochs >= 0 and settings.problems is not None:
        per_epoch = settings.problems // (settings.queries * devices)
        if per_epoch == 0:
            raise UserError(
                f"{devices} devices with {settings.queries} queries each need {devices * settings.queries} problems for an "
                f"update; there are {settings.problems}."
            )
        found.append(settings.max_epochs * per_epoch)
    return min(found, default=None)


def advice(plan: Plan) -> list[str]:
    """What to change where it does not fit, the most helpful first."""
    if plan.fits:
        return []
    settings, parts = plan.settings, plan.memory_by_part
    limit = USABLE * plan.hardware.memory_bytes
    found = []
    if plan.resident > limit:
        if not settings.sharded and plan.hardware.devices > 1:
            found.append("shard weights, gradients and optimizer: trainer.strategy: atmanrl.distributed.FSDP2Strategy")
        elif settings.sharded:
            found.append("take more devices: each holds a smaller slice")
        if settings.lora is None:
            found.append("train adapters alone: model.policy.lora")
    worst = max(plan.peak_by_phase, key=lambda phase: plan.peak_by_phase[phase])
    if worst == "update":
        if not settings.checkpointing and parts["activations of the update"] > parts["logits of the update"]:
            found.append("model.policy.activation_checkpointing: true")
        if settings.micro_batch_tokens > plan.lengths.prompt + settings.max_new_tokens:
            found.append(f"a smaller model.micro_batch_tokens (now {settings.micro_batch_tokens})")
        elif not settings.reinforcement:
            found.append(f"a smaller data.batch_size (now {settings.queries})")
    if worst == "sampling":
        found.append(f"fewer data.queries_per_device (now {settings.queries}), or a smaller data.max_new_tokens")
    if worst == "probing" and settings.probe is not None:
        if settings.probe.batch_tokens > settings.max_new_tokens:
            found.append(f"a smaller batch_tokens of the probe (now {settings.probe.batch_tokens})")
        found.append("a smaller data.max_new_tokens: masks grow with its square")
    return found or [f"devices with more memory: {plan.peak / USABLE / 1e9:.0f} GB each"]
