"""Bytes of everything in a device's memory, each by a formula of its own.

Counts of activations are those of tensors that PyTorch keeps for the backward pass of a layer as transformers writes it
for Llama (norm, attention, norm, gated feed-forward part); Korthikanti et al. 2022 (arXiv 2205.05198), section 4, count the
same way for a GPT. `tests/plan` counts them by brute force.
"""

from __future__ import annotations

import math

from atmanrl.models.token_scores import LOGITS_AT_ONCE
from atmanrl.plan.shape import ModelShape
from atmanrl.rollouts.preallocated import ROOM
from atmanrl.rollouts.static_decoding import columns_for, filled_size

FP32 = 4
SCORED_LOGITS_COPIES = 2
"""fp32 copies of the logits at the worst moment of an update: scaled and softmax, later softmax and gradient."""
TAUGHT_LOGITS_COPIES = 3
"""fp32 copies of the logits at the worst moment of the warm start: log-softmax, its gradient, that of the logits."""
SAMPLED_LOGITS_COPIES = 5
"""fp32 copies of a step's logits while a token is drawn: scaled, softmax, its units, and these as integers (two)."""


def weights_bytes(model: ModelShape, bytes_per_weight: int, shards: int) -> float:
    """Return the bytes of the weights as they are stored, and of fp32 adapters, on one of `shards` devices."""
    return (model.parameters * bytes_per_weight + model.adapter_parameters * FP32) / shards


def gradients_bytes(model: ModelShape, bytes_per_weight: int, shards: int) -> float:
    """Return the bytes of the gradients: one for each trainable parameter, in its own dtype."""
    width = FP32 if model.adapter_parameters else bytes_per_weight
    return model.trainable_parameters * width / shards


def optimizer_bytes(model: ModelShape, bytes_per_weight: int, shards: int, moments: float) -> float:
    """Return the bytes of `moments` tensors for each parameter that learns: AdamW keeps two, SGD none, with momentum one."""
    return moments * gradients_bytes(model, bytes_per_weight, shards)


def gathered_bytes(model: ModelShape, compute_bytes: int) -> float:
    """Return the bytes of an unsharded copy in the dtype of computation, for sampling and probing."""
    return float(compute_bytes * (model.parameters + model.adapter_parameters))


def gathered_layers_bytes(model: ModelShape, compute_bytes: int) -> float:
    """Return the bytes that are gathered at once where layers are gathered one by one: two layers, embedding and head.

    In an update FSDP2 gathers the next layer while the one before is at work; elsewhere one piece becomes single weights.
    """
    layer = (model.layer_parameters + model.adapter_parameters) / model.layers
    return compute_bytes * (2 * layer + model.embedding_parameters + model.head_parameters)


def copy_bytes(model: ModelShape, weight_bytes: int, compute_bytes: int) -> float:
    """Return the bytes of the copy that sampling and probing read (see `distributed.inference_copy`).

    It holds weights, and fp32 adapters, in the dtype of computation; those that are as narrow already are shared.
    """
    weights = model.parameters if weight_bytes > compute_bytes else 0
    return float(compute_bytes * (weights + (model.adapter_parameters if compute_bytes < FP32 else 0)))


def cast_bytes(model: ModelShape, weight_bytes: int, compute_bytes: int) -> float:
    """Return the bytes of the matrices that autocast keeps until a pass is over; norms and the embedding are not cast."""
    if weight_bytes == compute_bytes or model.adapter_parameters:
        return float(compute_bytes * model.adapter_parameters if model.adapter_parameters else 0)
    head = model.head_parameters or model.vocabulary * model.hidden
    return float(compute_bytes * (model.layer_parameters + head))


def cache_bytes(model: ModelShape, rows: float, tokens: float, compute_bytes: int) -> float:
    """Return the bytes of the keys and values of `rows` sequences: 2 x layers x width x tokens."""
    return 2.0 * model.layers * model.kv_width * tokens * rows * compute_bytes


def sampling_cache_bytes(model: ModelShape, rows: int, tokens: float, compute_bytes: int, static: bool) -> float:
    """Return the bytes of the sampler's cache when `rows` sequences have reached `tokens` positions, prompts included.

    A dynamic cache grows by `rollouts.preallocated.ROOM` positions. A static one has a multiple of
    `rollouts.static_decoding.COLUMNS` for all of its rows, of which there is a power of two.
    """
    if not static:
        return cache_bytes(model, rows, tokens + ROOM, compute_bytes)
    return cache_bytes(model, filled_size(rows), columns_for(math.ceil(tokens), model.context), compute_bytes)


def layer_activation_bytes(model: ModelShape, compute_bytes: int) -> float:
    """Return the bytes that a layer keeps of one token for the backward pass of an update.

    Both norms keep their input and what they multiply by their weight in fp32 (4 h); matrices keep their inputs: 2 h, the
    attention's output q, the product f; attention keeps queries, keys, values and output (2 q + 2 k); the feed-forward part
    keeps gate, activated gate and up (3 f).
    """
    fp32 = 4 * model.hidden * FP32
    kept = 2 * model.hidden + 3 * model.query_width + 2 * model.kv_width + 4 * model.intermediate
    return fp32 + compute_bytes * kept


def layer_input_bytes(model: ModelShape) -> float:
    """Return the bytes that a layer keeps of one token under activation checkpointing: its input, in fp32."""
    return float(FP32 * model.hidden)


def update_activation_bytes(model: ModelShape, tokens: float, compute_bytes: int, checkpointing: bool) -> float:
    """Return the bytes kept of `tokens`; with checkpointing, the inputs of all layers and the activations of one."""
    layer = layer_activation_bytes(model, compute_bytes)
    if checkpointing:
        return tokens * (model.layers * layer_input_bytes(model) + layer)
    return tokens * model.layers * layer


def probe_layer_activation_bytes(model: ModelShape, compute_bytes: int) -> float:
    """Return the bytes that a layer keeps of one token for a gradient of the mask alone.

    Frozen matrices and norms need not keep what they multiply: norms keep their input in fp32 (2 h), attention its queries,
    keys, values and output (2 q + 2 k), the feed-forward part gate, activated gate and up (3 f).
    """
    kept = 2 * model.query_width + 2 * model.kv_width + 3 * model.intermediate
    return 2 * model.hidden * FP32 + compute_bytes * kept


def probe_activation_bytes(model: ModelShape, sequences: float, rows: float, keys: float, compute_bytes: int) -> float:
    """Return the bytes of `sequences` rollouts of `rows` tokens that attend to `keys`, and of one layer's attention.

    The attention works on scores in fp32, and holds three of them at once; the bias is one more for all heads.
    """
    kept = sequences * rows * model.layers * probe_layer_activation_bytes(model, compute_bytes)
    past = sequences * (keys - rows) * 2 * model.kv_width * compute_bytes * model.layers
    return kept + past + sequences * rows * keys * FP32 * (3 * model.heads + 2)


def mask_entries(cot: float, delimiter_and_answer: float) -> float:
    """Return the trainable entries of a rollout's full mask: T (T + 1) / 2 + T (D + N), see `probe.mask`."""
    return cot * (cot + 1) / 2 + cot * delimiter_and_answer


def mask_bytes(entries: float, rollouts: float, copies: int) -> float:
    """Return the bytes of `copies` fp32 tensors of the size of all masks of a device's rollouts."""
    return entries * rollouts * FP32 * copies


def scored_logits_bytes(model: ModelShape, positions: float, compute_bytes: int) -> float:
    """Return the bytes of the logits that `models.logits.scores_at` holds at a time, of `positions` of completions.

    In fp32 the logits are their own scaled copy.
    """
    copies = SCORED_LOGITS_COPIES - (compute_bytes >= FP32)
    return logits_bytes(model, min(positions, max(1, LOGITS_AT_ONCE // model.vocabulary)), compute_bytes, copies)


def logits_bytes(model: ModelShape, positions: float, compute_bytes: int, fp32_copies: int) -> float:
    """Return the bytes of the logits of `positions`, and of copies of them in fp32."""
    return positions * model.vocabulary * (compute_bytes + fp32_copies * FP32)
