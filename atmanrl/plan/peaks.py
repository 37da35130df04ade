"""Bytes of a device by part and by phase: what is there together, and when."""

from __future__ import annotations

import math

from atmanrl.plan import memory
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape


def memory_by_phase(
    model: ModelShape, settings: RunSettings, hardware: Hardware, lengths: Lengths
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the bytes of one device for the longest completions: by part, at the peak of each phase, and all the time.

    Only the update holds gradients and the weights that autocast has cast; only sampling and the probe hold the copy of
    the weights that they read.
    """
    shards = hardware.devices if settings.sharded else 1
    weight, compute = settings.weight_bytes, settings.compute_bytes
    longest = lengths.prompt + (settings.max_new_tokens if settings.reinforcement else lengths.completion)
    parts = {
        "weights": memory.weights_bytes(model, weight, shards),
        "gradients": memory.gradients_bytes(model, weight, shards),
        "optimizer": memory.optimizer_bytes(model, weight, shards, settings.moments),
        "reference": memory.weights_bytes(model, weight, shards) if settings.reference and not settings.lora else 0.0,
    }
    if hardware.devices > 1 and not settings.sharded:
        parts["buckets of DDP"] = parts["gradients"]  # made once, from which all gradients would be sent
    resident = sum(parts.values()) - parts["gradients"]
    cast = memory.cast_bytes(model, weight, compute)
    copy = memory.copy_bytes(model, weight, compute)
    if shards > 1:
        copy = (memory.gathered_layers_bytes if settings.by_layer else memory.gathered_bytes)(model, compute)
    minibatch = min(settings.minibatch_queries, settings.queries) * settings.group
    together = max(longest, min(settings.micro_batch_tokens, minibatch * longest))
    completion_share = (longest - lengths.prompt) / longest
    parts["copy of the weights"] = copy
    parts["activations of the update"] = memory.update_activation_bytes(
        model, together, compute, settings.checkpointing
    )
    parts["logits of the update"] = (
        memory.scored_logits_bytes(model, together * completion_share, compute)
        if settings.reinforcement
        else memory.logits_bytes(model, together * completion_share, compute, memory.TAUGHT_LOGITS_COPIES)
    )
    gathered = memory.gathered_layers_bytes(model, compute) if shards > 1 else cast
    passing = parts["activations of the update"] + parts["logits of the update"]
    peaks = {"update": resident + parts["gradients"] + gathered + passing}
    if settings.reinforcement:
        rows = settings.rollouts
        parts["caches of sampling"] = memory.sampling_cache_bytes(model, rows, longest, compute, settings.static_cache)
        parts["logits of sampling"] = memory.logits_bytes(model, rows, compute, memory.SAMPLED_LOGITS_COPIES)
        peaks["sampling"] = resident + copy + parts["caches of sampling"] + parts["logits of sampling"]
    if settings.probes:
        tail = longest - lengths.prompt
        # one reward probes after the other
        parts["masks and their solver"] = max(_mask_bytes(settings, probe, tail, lengths) for probe in settings.probes)
        parts["activations of the probe"] = max(
            _probe_bytes(model, settings, probe, tail, lengths) for probe in settings.probes
        )
        peaks["probing"] = resident + copy + parts["masks and their solver"] + parts["activations of the probe"]
    return parts, peaks, resident


def _mask_bytes(settings: RunSettings, probe: ProbeSettings, tail: float, lengths: Lengths) -> float:
    after = lengths.delimiter + lengths.answer
    entries = memory.mask_entries(max(tail - after, 0), after)
    return memory.mask_bytes(entries, settings.rollouts * probe.share, probe.mask_copies)


def _probe_bytes(
    model: ModelShape, settings: RunSettings, probe: ProbeSettings, tail: float, lengths: Lengths
) -> float:
    sequences = min(settings.rollouts, max(1, probe.batch_tokens // max(1, math.ceil(tail))))
    activations = memory.probe_activation_bytes(model, sequences, tail, lengths.prompt + tail, settings.compute_bytes)
    return activations + memory.logits_bytes(model, sequences * lengths.answer, settings.compute_bytes, 3)
