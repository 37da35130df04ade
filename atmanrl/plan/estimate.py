"""A run's memory by part, time by phase, tokens and GPU-hours: the formulas put together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from atmanrl.errors import UserError
from atmanrl.plan import flops, memory
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape

USABLE = 0.92
"""Share of a device's memory that a plan may fill: the rest is the context, fragments and the libraries' workspaces."""


@dataclass(frozen=True)
class Hardware:
    """What the run is to run on.

    Attributes:
        devices: in all, one process each.
        memory_bytes: of each.
        flops_per_second: of each, dense, in the dtype of computation: the data sheet's.
        bandwidth_bytes_per_second: between a device and its memory.
        link_bytes_per_second: between a device and the others.
        efficiency: share of the FLOP/s that large matrix products reach, all else counted in.
        layer_seconds: least time of one layer's forward pass, however small: starting its kernels from Python.
    """

    devices: int
    memory_bytes: float
    flops_per_second: float
    bandwidth_bytes_per_second: float
    link_bytes_per_second: float = 50e9
    efficiency: float = 0.4
    layer_seconds: float = 3e-4

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        if self.devices < 1:
            raise UserError(f"--devices is {self.devices}; give at least 1.")
        if not 0 < self.efficiency <= 1:
            raise UserError(f"--efficiency is {self.efficiency}; give a share above 0 and up to 1.")

    def compute_seconds(self, operations: float) -> float:
        """Of matrix products."""
        return operations / (self.flops_per_second * self.efficiency)


@dataclass(frozen=True)
class Lengths:
    """Tokens, on average, that the plan takes for granted."""

    prompt: float = 160.0
    completion: float = 250.0
    answer: float = 3.0
    delimiter: float = 2.0


@dataclass
class Plan:
    """What was found; bytes and seconds are for one device.

    Attributes:
        memory_by_part: bytes; the last four are not there at the same time.
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
    parts, peaks, resident = _memory(model, settings, hardware, lengths)
    updates = _updates(settings, hardware.devices)
    tokens = hardware.devices * settings.rollouts * (lengths.prompt + lengths.completion)
    seconds = _seconds(model, settings, hardware, lengths)
    return Plan(model, settings, hardware, lengths, parts, peaks, resident, seconds, updates, tokens)


def _memory(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths
) -> tuple[dict[str, float], dict[str, float], float]:
    shards = hardware.devices if settings.sharded else 1
    weight, compute = settings.weight_bytes, settings.compute_bytes
    longest = lengths.prompt + (settings.max_new_tokens if settings.reinforcement else lengths.completion)
    parts = {
        "weights": memory.weights_bytes(model, weight, shards),
        "gradients": memory.gradients_bytes(model, weight, shards),
        "optimizer": memory.optimizer_bytes(model, weight, shards, settings.moments),
        "reference": memory.weights_bytes(model, weight, shards) if settings.reference and not settings.lora else 0.0,
    }
    resident = sum(parts.values())
    cast = memory.cast_bytes(model, weight, compute)
    whole = memory.gathered_bytes(model, compute) if shards > 1 else cast
    minibatch = min(settings.minibatch_queries, settings.queries) * settings.group
    together = max(longest, min(settings.micro_batch_tokens, minibatch * longest))
    completion_share = (longest - lengths.prompt) / longest
    parts["gathered or converted weights"] = whole
    parts["activations of the update"] = memory.update_activation_bytes(
        model, together, compute, settings.checkpointing
    )
    parts["logits of the update"] = (
        memory.scored_logits_bytes(model, together * completion_share, compute)
        if settings.reinforcement
        else memory.logits_bytes(model, together * completion_share, compute, memory.TAUGHT_LOGITS_COPIES)
    )
    gathered = memory.gathered_layers_bytes(model, compute) if shards > 1 else cast
    peaks = {
        "update": resident + gathered + parts["activations of the update"] + parts["logits of the update"],
    }
    if settings.reinforcement:
        rows = settings.rollouts
        parts["caches of sampling"] = memory.cache_bytes(model, rows, longest + memory.ROOM_TOKENS, compute)
        parts["logits of sampling"] = memory.logits_bytes(model, rows, compute, memory.SAMPLED_LOGITS_COPIES)
        peaks["sampling"] = resident + whole + parts["caches of sampling"] + parts["logits of sampling"]
    if settings.probe is not None:
        tail = longest - lengths.prompt
        parts["masks and their solver"] = _mask_bytes(settings, settings.probe, tail, lengths)
        parts["activations of the probe"] = _probe_bytes(model, settings, settings.probe, tail, lengths)
        peaks["probing"] = resident + whole + parts["masks and their solver"] + parts["activations of the probe"]
    return parts, peaks, resident


def _mask_bytes(settings: RunSettings, probe: ProbeSettings, tail: float, lengths: Lengths) -> float:
    after = lengths.delimiter + lengths.answer
    entries = memory.mask_entries(max(tail - after, 0), after)
    return memory.mask_bytes(entries, settings.rollouts, memory.SOLVER_COPIES.get(probe.solver, 5))


def _probe_bytes(
    model: ModelShape, settings: RunSettings, probe: ProbeSettings, tail: float, lengths: Lengths
) -> float:
    sequences = min(settings.rollouts, max(1, probe.batch_tokens // max(1, math.ceil(tail))))
    activations = memory.probe_activation_bytes(model, sequences, tail, lengths.prompt + tail, settings.compute_bytes)
    return activations + memory.logits_bytes(model, sequences * lengths.answer, settings.compute_bytes, 3)


def _seconds(model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths) -> dict[str, float]:
    found: dict[str, float] = {}
    length = lengths.prompt + lengths.completion
    if settings.reinforcement:
        found["sampling"] = sampling_seconds(
            model, settings, hardware, lengths, settings.queries, settings.group
        ) + _gather_seconds(model, settings, hardware)
    if settings.probe is not None:
        found["probing"] = probing_seconds(model, settings, settings.probe, hardware, lengths) + _gather_seconds(
            model, settings, hardware
        )
    operations = update_operations(model, settings, lengths)
    passes = math.ceil(settings.rollouts * length / max(settings.micro_batch_tokens, length))
    passes = max(passes, settings.minibatches) * settings.num_iterations
    floor = passes * 3 * model.layers * hardware.layer_seconds
    # each pass gathers the weights forwards and backwards, and scatters fp32 gradients
    traffic = (2 * settings.compute_bytes * model.parameters + memory.FP32 * model.trainable_parameters) * passes
    link = traffic / hardware.link_bytes_per_second if settings.sharded and hardware.devices > 1 else 0.0
    found["update"] = max(hardware.compute_seconds(operations), floor) + link
    if settings.reinforcement and settings.val_every:
        queries = math.ceil(settings.val_problems / hardware.devices)
        rounds = math.ceil(queries / settings.eval_queries)
        one = sampling_seconds(
            model, settings, hardware, lengths, min(queries, settings.eval_queries), settings.eval_samples
        )
        found["evaluation"] = rounds * one / settings.val_every
    return found


def update_operations(model: ModelShape, settings: RunSettings, lengths: Lengths) -> float:
    """FLOPs of one update on one device: passes over the rollouts, and old log-probabilities and the reference's."""
    length = lengths.prompt + lengths.completion
    rows = settings.rollouts
    sizes = (rows * length, rows * flops.pairs(length), rows * lengths.completion)
    once = flops.update_flops(model, *sizes, settings.checkpointing, settings.lora is not None)
    again = int(settings.rescore) + int(settings.reference)
    return settings.num_iterations * once + again * flops.forward_flops(model, *sizes)


def sampling_seconds(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths, queries: float, group: float
) -> float:
    """Reading the prompts once, then a step for each token of the longest completion.

    A step takes as long as the slowest of its parts: the FLOPs of the rows that are left, the bytes of weights and caches
    from memory (Pope et al. 2022, arXiv 2211.05102, section 2), starting the kernels. The longest of many completions is
    taken to be twice the average, within the limit; rows that are over are dropped, so on average half of the rows is left.
    """
    prefill = flops.forward_flops(model, queries * lengths.prompt, queries * flops.pairs(lengths.prompt), queries)
    steps = min(float(settings.max_new_tokens), 2 * lengths.completion)
    tokens = queries * group * lengths.completion
    rows, keys = tokens / steps, lengths.prompt + lengths.completion / 2
    operations = flops.forward_flops(model, rows, rows * keys, rows)
    moved = memory.gathered_bytes(model, settings.compute_bytes)
    moved += memory.cache_bytes(model, rows, keys, settings.compute_bytes)
    step = max(
        hardware.compute_seconds(operations), moved / hardware.bandwidth_bytes_per_second,
        model.layers * hardware.layer_seconds,
    )  # fmt: skip
    return max(hardware.compute_seconds(prefill), model.layers * hardware.layer_seconds) + steps * step


def probing_seconds(
    model: ModelShape, settings: RunSettings, probe: ProbeSettings, hardware: Hardware, lengths: Lengths
) -> float:
    """Reading the prompts once, then the solver's gradients of all rollouts, in batches of `batch_tokens`."""
    prompts = flops.forward_flops(
        model, settings.queries * lengths.prompt, settings.queries * flops.pairs(lengths.prompt), 0
    )
    one = probe_operations(model, probe, lengths)
    per_pass = max(1.0, probe.batch_tokens // lengths.completion)
    passes = math.ceil(settings.rollouts / per_pass)
    floor = passes * 2.5 * model.layers * hardware.layer_seconds
    gradient = max(hardware.compute_seconds(settings.rollouts * one), floor)
    return hardware.compute_seconds(prompts) + probe.gradients * gradient


def probe_operations(model: ModelShape, probe: ProbeSettings, lengths: Lengths) -> float:
    """FLOPs of one gradient of one rollout's mask."""
    pairs = flops.all_pairs(lengths.completion, lengths.prompt)
    return flops.probe_gradient_flops(model, lengths.completion, pairs, lengths.answer, recompute=True)


def _gather_seconds(model: ModelShape, settings: RunSettings, hardware: Hardware) -> float:
    if not settings.sharded or hardware.devices == 1:
        return 0.0
    return memory.gathered_bytes(model, settings.compute_bytes) / hardware.link_bytes_per_second


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
