"""Seconds of an update by phase: FLOPs, bytes moved, and kernels started, whichever takes longest."""

from __future__ import annotations

import math

from atmanrl.plan import flops, launches, memory
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape


def seconds_by_phase(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths
) -> dict[str, float]:
    """Of one update on one device, evaluation shared out."""
    found: dict[str, float] = {}
    length = lengths.prompt + lengths.completion
    if settings.reinforcement:
        found["sampling"] = sampling_seconds(
            model, settings, hardware, lengths, settings.queries, settings.group
        ) + _copy_seconds(model, settings, hardware)
    if settings.probe is not None:
        found["probing"] = probing_seconds(model, settings, settings.probe, hardware, lengths) + _copy_seconds(
            model, settings, hardware
        )
    operations = update_operations(model, settings, lengths)
    passes = math.ceil(settings.rollouts * length / max(settings.micro_batch_tokens, length))
    passes = max(passes, settings.minibatches) * settings.num_iterations
    floor = passes * (1 + launches.BACKWARD) * hardware.launch_seconds * launches.forward_launches(model)
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
    from memory (Pope et al. 2022, arXiv 2211.05102, section 2), starting the kernels. There are as many steps as the
    longest completion has tokens, within the limit; rows that are over are dropped.
    """
    prefill = flops.forward_flops(model, queries * lengths.prompt, queries * flops.pairs(lengths.prompt), queries)
    steps = min(float(settings.max_new_tokens), lengths.longest(queries * group))
    tokens = queries * group * lengths.completion
    rows, keys = tokens / steps, lengths.prompt + lengths.completion / 2
    operations = flops.forward_flops(model, rows, rows * keys, rows)
    moved = memory.gathered_bytes(model, settings.compute_bytes)
    moved += memory.cache_bytes(model, rows, keys, settings.compute_bytes)
    floor = hardware.launch_seconds * launches.forward_launches(model)
    step = max(hardware.compute_seconds(operations), moved / hardware.bandwidth_bytes_per_second, floor)
    return max(hardware.compute_seconds(prefill), floor) + steps * step


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
    floor = passes * (1 + launches.BACKWARD_TO_MASK) * hardware.launch_seconds * launches.forward_launches(model)
    gradient = max(hardware.compute_seconds(settings.rollouts * one), floor)
    return hardware.compute_seconds(prompts) + probe.gradients * gradient


def probe_operations(model: ModelShape, probe: ProbeSettings, lengths: Lengths) -> float:
    """FLOPs of one gradient of one rollout's mask."""
    pairs = flops.all_pairs(lengths.completion, lengths.prompt)
    return flops.probe_gradient_flops(model, lengths.completion, pairs, lengths.answer, recompute=True)


def _copy_seconds(model: ModelShape, settings: RunSettings, hardware: Hardware) -> float:
    """Of gathering sharded weights, or of casting wider ones, once for sampling and once for probing."""
    if settings.sharded and hardware.devices > 1:
        return memory.gathered_bytes(model, settings.compute_bytes) / hardware.link_bytes_per_second
    copied = memory.copy_bytes(model, settings.weight_bytes, settings.compute_bytes)
    return (1 + settings.weight_bytes / settings.compute_bytes) * copied / hardware.bandwidth_bytes_per_second
