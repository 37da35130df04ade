"""Log-probabilities and entropies of tokens, with as few logits in memory as need be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atmanrl.models.layers import below_head
from atmanrl.models.logits import head_at, last_layer_at, logits_at
from atmanrl.models.numerics import widened, without_autocast

LOGITS_AT_ONCE = 1 << 26
"""Most logits that `scores_at` holds at a time: 256 MiB in float32."""
PRODUCTS_AT_ONCE = 1 << 22
"""Products that entropies' sums have in memory at a time: 16 MiB in float32."""


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return logits over a temperature, in float32 or better; at temperature 1 that is no pass over them."""
    logits = logits.to(widened(logits.dtype))
    return logits if temperature == 1 else logits / temperature


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log-probabilities `[K]` of `tokens [K]` under `logits [K, V]` at a temperature, in float32 or better."""
    logits = at_temperature(logits, temperature)
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


class _TokenScores(torch.autograd.Function):
    """Log-probability of one token a row and the entropy of each row, with a single softmax for both and the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        scaled = at_temperature(logits, temperature)
        probabilities = scaled.softmax(-1)
        top, where = scaled.max(-1, keepdim=True)
        total = (top - probabilities.gather(-1, where).log())[:, 0]  # logsumexp, without another pass of exponentials
        chosen = scaled.gather(-1, tokens[:, None])[:, 0] - total
        with without_autocast(logits):  # in bf16 the product is off by up to 0.03 nats
            entropy = total - _row_products(probabilities, scaled)
        ctx.save_for_backward(probabilities, tokens)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        probabilities, tokens = ctx.saved_tensors
        grad = (grads[0] / ctx.temperature)[:, None]
        return (probabilities * -grad).scatter_add_(-1, tokens[:, None], grad).to(ctx.dtype), None, None


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    """Return the scalar product of each row, `[K]` from two `[K, V]`, some rows at a time: `vecdot` copies what it reads."""
    rows = max(1, PRODUCTS_AT_ONCE // left.shape[-1])
    pairs = zip(torch.split(left, rows), torch.split(right, rows), strict=True)
    return torch.cat([torch.linalg.vecdot(some, others) for some, others in pairs])


def token_scores(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return log-probabilities `[K]` of `tokens [K]` under `logits [K, V]` at a temperature, and entropies `[K]`.

    In nats, in float32 or better. The entropy has no gradient.
    """
    chosen, entropy = _TokenScores.apply(logits, tokens, temperature)  # type: ignore[no-untyped-call]
    return chosen, entropy


def likeliest_scores(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities `[K]` of `tokens [K]` under `logits [K, V]`, and whether each is the likeliest, `[K]`.

    Of several that are equally likely the first one counts, as in greedy decoding.
    """
    return token_logprobs(logits, tokens), logits.argmax(-1) == tokens


def scores_at(
    model: nn.Module, where: Tensor, tokens: Tensor, temperature: float = 1.0, most: int = LOGITS_AT_ONCE, **inputs: Any
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies (see `token_scores`) of the K tokens that follow true positions of `where`.

    Where K x V logits would be more than `most`, they are computed for some positions at a time and, for the gradient,
    once more in the backward pass, so that they never exist all at once. Values and gradients are the same.

    Args:
        model: a Hugging Face causal language model.
        where: `[B, S]` boolean with K true entries.
        tokens: `[K]` in row-major order.
        temperature: of the softmax.
        most: logits that are held at a time; at least one position's are.
        inputs: of the model: `input_ids [B, S]`, `attention_mask`, `position_ids`, `past_key_values`.
    """
    return scored_at(model, where, tokens, partial(token_scores, temperature=temperature), most, **inputs)


def scored_at(
    model: nn.Module, where: Tensor, tokens: Tensor, score: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    most: int = LOGITS_AT_ONCE, **inputs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return what `score(logits [k, V], tokens [k])` says of the K tokens that follow true positions of `where`.

    It is called for some positions at a time where there are many (see `scores_at`), and returns two tensors `[k]`.
    """
    size = max(1, most // int(model.config.get_text_config().vocab_size))  # type: ignore[operator, union-attr]
    if len(tokens) <= size:
        return score(logits_at(model, where, **inputs), tokens)
    hidden, output = _hidden_at(model, where, **inputs)

    def some(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return score(_head(model, states, output), chosen)

    parts = [
        checkpoint(some, states, chosen, use_reentrant=False, preserve_rng_state=False)
        for states, chosen in zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
    ]
    return torch.cat([first for first, _ in parts]), torch.cat([second for _, second in parts])


def _hidden_at(model: nn.Module, where: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """What the head would read at the K true positions, `[K, D]`, and the output of the model below the head."""
    outputs: list[Any] = []
    base: nn.Module = below_head(model)
    handle = base.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        with head_at(model, torch.zeros_like(where)), last_layer_at(model, where):
            model(**inputs)
    finally:
        handle.remove()
    return outputs[0].last_hidden_state[where], outputs[0]


def _head(model: nn.Module, hidden: Tensor, output: Any) -> Tensor:
    """Logits `[K, V]` of hidden states `[K, D]`, with whatever the model does to its logits after the head.

    The model runs as it is, except that what lies below its head gives back these states.
    """
    replayed = copy.copy(output)
    replayed["last_hidden_state"], replayed["past_key_values"] = hidden[None], None
    base: nn.Module = below_head(model)
    own = base.__dict__.get("forward")
    base.forward = lambda *_args, **_kwargs: replayed
    try:
        logits: Tensor = model(input_ids=torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)).logits
    finally:
        del base.forward
        if own is not None:
            base.forward = own
    return logits[0]
