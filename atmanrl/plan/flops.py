"""Floating-point operations of the passes over a model, in FLOPs (a multiplication and an addition are two).

A matrix of N weights costs 2 N a token, and attention 4 x width a pair of positions (scores, and sums of values), in
each layer: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1, and Narayanan et al. 2021 (arXiv 2104.04473), appendix.
Norms, activations and softmax are left out: they are below a percent of FLOPs. Embeddings are looked up, not multiplied.
"""

from __future__ import annotations

from atmanrl.plan.shape import ModelShape


def pairs(tokens: float, before: float = 0.0) -> float:
    """Return the pairs (query, key) of a causal mask: n new tokens after m others have n m + n (n + 1) / 2."""
    return tokens * before + tokens * (tokens + 1) / 2


def all_pairs(tokens: float, before: float = 0.0) -> float:
    """Return the pairs that kernels compute without regard to the mask (eager, lean): n (m + n)."""
    return tokens * (before + tokens)


def matrix_flops(model: ModelShape, tokens: float) -> float:
    """Return the forward FLOPs of the layers' matrices, adapters included: 2 x parameters x tokens."""
    return 2.0 * (model.layer_parameters + model.adapter_parameters) * tokens


def head_flops(model: ModelShape, tokens: float) -> float:
    """Return the forward FLOPs of the language-model head: 2 x vocabulary x hidden x tokens with logits."""
    return 2.0 * model.vocabulary * model.hidden * tokens


def attention_flops(model: ModelShape, query_key_pairs: float) -> float:
    """Return the forward FLOPs of attention, scores and sums of values: 4 x width x pairs x layers."""
    return 4.0 * model.query_width * model.layers * query_key_pairs


def forward_flops(model: ModelShape, tokens: float, query_key_pairs: float, logits: float) -> float:
    """Return the FLOPs of a forward pass over `tokens`, with `logits` positions at the head."""
    return (
        matrix_flops(model, tokens) + attention_flops(model, query_key_pairs) + head_flops(model, logits)
    )  # fmt: skip


def update_flops(
    model: ModelShape, tokens: float, query_key_pairs: float, logits: float, checkpointing: bool, frozen: bool
) -> float:
    """Return the FLOPs of a forward and a backward pass.

    Backwards, a matrix costs twice a forward pass: a gradient of its inputs and one of its weights. With adapters
    (`frozen`) the latter is left out. Attention has no weights, but two inputs, and costs twice in any case. Activation
    checkpointing computes the layers, not the head, once more (Chen et al. 2016, arXiv 1604.06174).
    """
    layers, head = matrix_flops(model, tokens), head_flops(model, logits)
    attention = attention_flops(model, query_key_pairs)
    backward = (1 if frozen else 2) * (layers + head) + 2 * attention
    return layers + head + attention + backward + (layers + attention if checkpointing else 0.0)


def probe_gradient_flops(
    model: ModelShape, rows: float, query_key_pairs: float, answer: float, recompute: bool
) -> float:
    """Return the FLOPs of one gradient of a mask: forward, and backward to the mask alone.

    The weights are frozen, so a matrix costs as much backwards as forwards. The last layer's feed-forward part is computed
    at the answer alone. Attention costs twice as much backwards, and half a forward pass more where its probabilities are
    computed again (`recompute`, lean and flash).

    Args:
        model: the model's shape.
        rows: reasoning, delimiter and answer tokens.
        query_key_pairs: of these rows with all keys.
        answer: tokens of the gold answer.
        recompute: whether the backward pass computes the probabilities again.
    """
    matrices = matrix_flops(model, rows) - 2.0 * model.feed_forward_parameters * (rows - answer)
    head, attention = head_flops(model, answer), attention_flops(model, query_key_pairs)
    return 2 * (matrices + head) + attention * (3.5 if recompute else 3.0)
