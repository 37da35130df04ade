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
    """What a run takes; bytes and seconds are those of one device.

    Attributes:
        model: the shape that was planned for.
        settings: of the run.
        hardware: that it runs on.
        lengths: that are assumed.
        memory_by_part: bytes; the parts are not all held at the same time.
        peak_by_phase: bytes at the worst moment of each phase, `resident` included.
        resident: bytes that are held all the time.
        seconds_by_phase: of one update.
        updates: of the whole run, None if not known.
        tokens_per_update: prompts and completions, over all devices.

    Example:
        `Plan(model, settings, hardware, lengths, memory_by_part={"weights": 3.6e6}, peak_by_phase={"update": 8.0e8},
        resident=3.6e6, seconds_by_phase={"sampling": 0.7, "update": 2.1}, updates=100, tokens_per_update=14400.0)`
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
        """Whether the peak is within the usable memory of a device."""
        return self.peak <= USABLE * self.hardware.memory_bytes

    @property
    def update_seconds(self) -> float:
        """Seconds of one update, with its part of the evaluations."""
        return sum(self.seconds_by_phase.values())

    @property
    def run_seconds(self) -> float | None:
        """Seconds of the whole run; None if its updates are not known."""
        return None if self.updates is None else self.updates * self.update_seconds

    @property
    def gpu_hours(self) -> float | None:
        """Device-hours of the whole run; None if its updates are not known."""
        return None if self.run_seconds is None else self.run_seconds / 3600 * self.hardware.devices

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
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
    """Plan a run: its memory for the longest completions that may come, its time for average ones.

    Raises:
        UserError: `fit` would refuse the run: too few problems for so many devices, or a warm start on more than one.
    """
    if not settings.reinforcement and hardware.devices > 1:
        raise UserError("the supervised warm start runs on one process; give --devices 1.")
    if settings.reinforcement and 0 < settings.val_problems < hardware.devices:
        raise UserError(
            f"data.val_problems gives {settings.val_problems} problems to {hardware.devices} devices: some would have none "
            "to answer. Give more of them, or take fewer devices."
        )
    parts, peaks, resident = memory_by_phase(model, settings, hardware, lengths)
    updates = settings.updates(hardware.devices)
    tokens = hardware.devices * settings.rollouts * (lengths.prompt + lengths.completion)
    seconds = seconds_by_phase(model, settings, hardware, lengths)
    return Plan(model, settings, hardware, lengths, parts, peaks, resident, seconds, updates, tokens)


def advice(plan: Plan) -> list[str]:
    """Return what to change where a run does not fit, the most helpful first."""
    if plan.fits:
        return []
    settings, parts = plan.settings, plan.memory_by_part
    limit = USABLE * plan.hardware.memory_bytes
    hints = []
    if plan.resident > limit:
        if not settings.sharded and plan.hardware.devices > 1:
            hints.append("shard weights, gradients and optimizer: trainer.strategy: atmanrl.distributed.FSDP2Strategy")
        elif settings.sharded:
            hints.append("take more devices: each holds a smaller shard")
        if settings.lora is None:
            hints.append("train adapters alone: model.policy.lora")
    if settings.sharded and not settings.by_layer and plan.resident + parts["copy of the weights"] > limit:
        hints.append("gather one layer at a time: trainer.strategy.gather: layer")
    worst = max(plan.peak_by_phase, key=lambda phase: plan.peak_by_phase[phase])
    if worst == "update":
        if not settings.checkpointing and parts["activations of the update"] > parts["logits of the update"]:
            hints.append("model.policy.activation_checkpointing: true")
        if settings.micro_batch_tokens > plan.lengths.prompt + settings.max_new_tokens:
            hints.append(f"a smaller model.micro_batch_tokens (now {settings.micro_batch_tokens})")
        elif not settings.reinforcement:
            hints.append(f"a smaller data.batch_size (now {settings.queries})")
    if worst == "sampling":
        hints.append(f"fewer data.queries_per_device (now {settings.queries}), or a smaller data.max_new_tokens")
    if worst == "probing":
        tokens = max(probe.batch_tokens for probe in settings.probes)
        if tokens > settings.max_new_tokens:
            hints.append(f"a smaller batch_tokens of the probe (now {tokens})")
        hints.append("a smaller data.max_new_tokens: masks grow with its square")
    return hints or [f"devices with more memory: {plan.peak / USABLE / 1e9:.0f} GB each"]
