"""Seconds of an update by phase: FLOPs, bytes moved, and kernels started, whichever takes longest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from atmanrl.plan import flops, launches, memory
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape


def seconds_by_phase(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths
) -> dict[str, float]:
    """Return the seconds of one update on one device by phase, with its part of the evaluations."""
    seconds: dict[str, float] = {}
    length = lengths.prompt + lengths.completion
    copying = _copy_seconds(model, settings, hardware)
    if settings.reinforcement:
        seconds["sampling"] = copying + sampling_seconds(
            model, settings, hardware, lengths, settings.queries, settings.group
        )
    if settings.probes:
        seconds["probing"] = copying + probing_seconds(
            model, settings.probes, hardware, lengths, settings.queries, settings.group,
            gathering_seconds(model, settings, hardware),
        )  # fmt: skip
    operations = update_operations(model, settings, lengths)
    passes = math.ceil(settings.rollouts * length / max(settings.micro_batch_tokens, length))
    passes = max(passes, settings.minibatches) * settings.num_iterations
    floor = passes * (1 + launches.BACKWARD) * hardware.launch_seconds * launches.forward_launches(model)
    # each pass gathers the weights forwards and backwards, and scatters fp32 gradients
    traffic = (2 * settings.compute_bytes * model.parameters + memory.FP32 * model.trainable_parameters) * passes
    link = traffic / hardware.link_bytes_per_second if settings.sharded and hardware.devices > 1 else 0.0
    link += passes * settings.rescore / settings.num_iterations * gathering_seconds(model, settings, hardware)
    seconds["update"] = max(hardware.compute_seconds(operations), floor) + link
    if settings.reinforcement and (val_every := settings.val_every(hardware.devices)):
        seconds["evaluation"] = evaluation_seconds(model, settings, hardware, lengths) / val_every
    return seconds


def evaluation_seconds(model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths) -> float:
    """Return the seconds of one evaluation: sampling, and the probe where every reward is evaluated."""
    problems = math.ceil(settings.val_problems / hardware.devices)
    queries = min(problems, settings.eval_queries)
    batch = sampling_seconds(model, settings, hardware, lengths, queries, settings.eval_samples)
    if settings.evaluate_all_rewards:
        probes = [replace(probe, share=1.0) for probe in settings.probes]
        gathering = gathering_seconds(model, settings, hardware)
        batch += probing_seconds(model, probes, hardware, lengths, queries, settings.eval_samples, gathering)
    return math.ceil(problems / settings.eval_queries) * batch


def update_operations(model: ModelShape, settings: RunSettings, lengths: Lengths) -> float:
    """Return the FLOPs of one update on one device.

    Passes over the rollouts, and the old log-probabilities and the reference's. Where prompts are shared, a pass reads each
    of them once for all rollouts of its group.
    """
    prompt, completion, rollouts = lengths.prompt, lengths.completion, settings.rollouts
    prompts = settings.queries if settings.share_prompts else rollouts
    tokens = prompts * prompt + rollouts * completion
    pairs = prompts * flops.pairs(prompt) + rollouts * flops.pairs(completion, prompt)
    sizes = (tokens, pairs, rollouts * completion)
    once = flops.update_flops(model, *sizes, settings.checkpointing, settings.lora is not None)
    again = int(settings.rescore) + int(settings.reference)
    return settings.num_iterations * once + again * flops.forward_flops(model, *sizes)


def sampling_seconds(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths, queries: float, group: float
) -> float:
    """Return the seconds of sampling: prompts are read once, then each token of the longest completion takes a step.

    A step computes for the rows that are left, reads weights and caches from memory (Pope et al. 2022, arXiv 2211.05102,
    section 2), and launches its kernels; the slowest of the three counts where they overlap. Finished rows leave. On a GPU
    with a static cache a step is a CUDA graph, whose kernels follow one another at once, but not all at the same time.
    """
    prefill = flops.forward_flops(model, queries * lengths.prompt, queries * flops.pairs(lengths.prompt), queries)
    steps = min(float(settings.max_new_tokens), lengths.longest(queries * group))
    tokens = queries * group * lengths.completion
    rows, keys = tokens / steps, lengths.prompt + lengths.completion / 2
    operations = flops.forward_flops(model, rows, rows * keys, rows)
    moved = memory.gathered_bytes(model, settings.compute_bytes)
    moved += memory.cache_bytes(model, rows, keys, settings.compute_bytes)
    kernels = launches.forward_launches(model)
    captured = settings.static_cache and hardware.overlaps
    step = hardware.step_seconds(operations, moved, 0 if captured else kernels)
    step += launches.IN_GRAPH_SECONDS * kernels if captured else 0.0
    gathering = gathering_seconds(model, settings, hardware)
    return (
        max(hardware.compute_seconds(prefill), kernels * hardware.launch_seconds)
        + steps * step
        + (1 + steps) * gathering
    )


def probing_seconds(
    model: ModelShape,
    probes: Iterable[ProbeSettings],
    hardware: Hardware,
    lengths: Lengths,
    queries: float,
    group: float,
    gathering: float = 0.0,
) -> float:
    """Return the seconds of all probes: each reads its prompts once, then takes its gradients in batches of rollouts.

    Where weights are gathered for every pass, that takes `gathering` seconds forwards, and as many backwards.
    """
    prompt = flops.forward_flops(model, lengths.prompt, flops.pairs(lengths.prompt), 0)
    return sum(
        hardware.compute_seconds(queries * probe.share * prompt)
        + _gradients_seconds(model, probe, hardware, lengths, queries * probe.share * group, gathering)
        for probe in probes
    )


def _gradients_seconds(
    model: ModelShape, probe: ProbeSettings, hardware: Hardware, lengths: Lengths, rollouts: float, gathering: float
) -> float:
    passes = math.ceil(rollouts / max(1.0, probe.batch_tokens // lengths.completion))
    floor = passes * (1 + launches.BACKWARD_TO_MASK) * hardware.launch_seconds * launches.forward_launches(model)
    computing = hardware.compute_seconds(rollouts * probe_operations(model, lengths)) / hardware.probe_efficiency
    gradient = max(computing, floor) + 2 * passes * gathering
    return probe.gradients * gradient


def probe_operations(model: ModelShape, lengths: Lengths) -> float:
    """Return the FLOPs of one gradient of one rollout's mask."""
    pairs = flops.all_pairs(lengths.completion, lengths.prompt)
    return flops.probe_gradient_flops(model, lengths.completion, pairs, lengths.answer, recompute=True)


def gathering_seconds(model: ModelShape, settings: RunSettings, hardware: Hardware) -> float:
    """Return the seconds in which all layers are gathered once, where every pass does so; 0 where a copy is kept."""
    if not settings.by_layer or hardware.devices == 1:
        return 0.0
    layers = (model.layer_parameters + model.adapter_parameters) * settings.compute_bytes
    return layers / hardware.link_bytes_per_second


def _copy_seconds(model: ModelShape, settings: RunSettings, hardware: Hardware) -> float:
    """Return the seconds of gathering sharded weights, or of casting wider ones: once for sampling, and once for probing."""
    if settings.by_layer and hardware.devices > 1:
        return 0.0
    if settings.sharded and hardware.devices > 1:
        return memory.gathered_bytes(model, settings.compute_bytes) / hardware.link_bytes_per_second
    copied = memory.copy_bytes(model, settings.weight_bytes, settings.compute_bytes)
    return (1 + settings.weight_bytes / settings.compute_bytes) * copied / hardware.bandwidth_bytes_per_second
