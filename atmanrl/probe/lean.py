"""Attention with a bias that has a gradient, in few passes over the scores and with one layer's scores in memory at a time.

`eager` attention keeps the probabilities of every layer and head for the backward pass, layers x heads x length^2 numbers
at once, and so does PyTorch's `sdpa` where it has no kernel for a bias with a gradient (on a CPU). Here they are computed
again in the backward pass, as in flash attention (Dao et al. 2022, section 3.1), and kept only where they are small.
Scaling, bias and the softmax's gradient work in place, keys and values are not repeated for grouped queries, and gradients
that nobody asks for are not computed. In the last layer, rows whose output nobody reads (see `models.logits.wanted_rows`)
are left out.

On a GPU, in half precision, `probe.fused` computes the same in three kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from atmanrl.errors import UserError
from atmanrl.models.logits import wanted_rows
from atmanrl.models.numerics import widened, without_autocast

KEEP = 2**21
"""Probabilities of one layer are kept for the backward pass up to this many (8 MiB in float32)."""
UNKNOWN = ("softcap", "s_aux", "position_bias", "cache")
"""Arguments that some architectures pass to their attention, and this one has no support for."""

_CONSTANT_PAST: ContextVar[bool] = ContextVar("atmanrl_constant_past", default=False)


@contextmanager
def constant_past() -> Iterator[None]:
    """Treat keys and values from a cache, and the bias on them, as constants within: they need get no gradient."""
    token = _CONSTANT_PAST.set(True)
    try:
        yield
    finally:
        _CONSTANT_PAST.reset(token)


_TORCH_ALONE: ContextVar[bool] = ContextVar("atmanrl_torch_attention", default=False)


@contextmanager
def torch_attention() -> Iterator[None]:
    """Compute by PyTorch's operations alone within, on a GPU too: what the kernels are compared with."""
    token = _TORCH_ALONE.set(True)
    try:
        yield
    finally:
        _TORCH_ALONE.reset(token)


def lean_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Compute attention; an entry of transformers' registry of attention functions.

    Args:
        module: the attention layer.
        query: `[B, H, R, D]`.
        key: `[B, K, S, D]`, H a multiple of K.
        value: `[B, K, S, E]`.
        attention_mask: `[B, 1, R, S]`, added to the scores.
        scaling: factor of the scores; None is 1/sqrt(D).
        dropout: must be 0.
        **options: other arguments of the architecture.

    Returns:
        `[B, R, H, E]`, 0 in the rows that are left out, and None for the probabilities.

    Raises:
        UserError: the architecture's attention is of another kind.
    """
    other = [name for name in UNKNOWN if options.get(name) is not None]
    if other or dropout or attention_mask is None or not attention_mask.is_floating_point():
        what = ", ".join(other) or ("dropout" if dropout else "no float mask")
        raise UserError(f"{type(module).__name__} needs what lean attention does not have ({what}); take eager.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (_product_dtype(states) for states in (query, key, value))
    past = key.shape[2] - query.shape[2] if _CONSTANT_PAST.get() else 0
    where = wanted_rows(module)
    if where is None:
        return _attend(query, key, value, attention_mask, scale, past).transpose(1, 2), None
    # wanted rows come first, as many as the sequence with most of them has; the others fill up with rows nobody reads
    rows = where.byte().argsort(dim=1, descending=True, stable=True)[:, None, : int(where.sum(1).max()), None]
    some, bias = (torch.take_along_dim(each, rows, dim=2) for each in (query, attention_mask))
    mixed = _attend(some, key, value, bias, scale, past)
    output = mixed.new_zeros(*query.shape[:3], mixed.shape[3]).scatter(2, rows.expand_as(mixed), mixed)
    return output.transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, past: int) -> Tensor:
    """Return attention `[B, H, R, E]`; the first `past` keys and values get a gradient of 0."""
    fused = None if _TORCH_ALONE.get() else _fused()
    operation = fused.FusedAttention if fused is not None and fused.fits(query, value) else _Attention
    mixed: Tensor = operation.apply(query, key, value, bias, scale, past)
    return mixed


@cache
def _fused() -> Any:
    """The kernels for a GPU, where there is Triton, which comes with PyTorch for CUDA; else None."""
    return import_module("atmanrl.probe.fused") if find_spec("triton") and torch.cuda.is_available() else None


def _product_dtype(states: Tensor) -> Tensor:
    """Return queries, keys or values in the dtype in which products are computed: autocast's, where it is on."""
    kind = states.device.type
    if torch.is_autocast_enabled(kind) and states.dtype != torch.float64:
        return states.to(torch.get_autocast_dtype(kind))
    return states


def _probabilities(query: Tensor, key: Tensor, bias: Tensor, scale: float) -> Tensor:
    """Return the softmax of the biased scores, `[B, K, H/K * R, S]`, in float32 or better."""
    batch, heads, rows, width = query.shape
    # the H/K query heads that share keys stand next to each other: as further rows of one product, they need no copies of
    # the keys
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = torch.matmul(grouped * scale, key.transpose(2, 3)).to(widened(query.dtype))
    scores.view(batch, heads, rows, -1).add_(bias)
    return scores.softmax(-1)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, past: int
    ) -> Tensor:  # fmt: skip
        batch, heads, rows, _ = query.shape
        with without_autocast(query):
            probabilities = _probabilities(query, key, bias, scale)
            out = torch.matmul(probabilities.to(value.dtype), value)
        kept = probabilities if probabilities.numel() <= KEEP else None
        ctx.save_for_backward(query, key, value, bias, out, kept)
        ctx.scale, ctx.past = scale, past
        return out.view(batch, heads, rows, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(gradient):
            return _Attention._gradients(ctx, gradient)

    @staticmethod
    def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, out, kept = ctx.saved_tensors
        probabilities = _probabilities(query, key, bias, ctx.scale) if kept is None else kept
        batch, heads, rows, width = query.shape
        gradient = gradient.reshape(out.shape)
        to_query, to_key, to_value, to_bias = ctx.needs_input_grad[:4]
        value_gradient = _of_keys(probabilities.to(value.dtype), gradient, ctx.past) if to_value else None
        # With probabilities p and their gradient dp = do v^T, the softmax's gradient is p (dp - sum_j p_j dp_j). The sum is
        # that of o do over the value's width, since o = p v: it costs width instead of length, and needs no dp beside it.
        scores = torch.matmul(gradient, value.transpose(2, 3)).to(probabilities.dtype)
        wide = probabilities.dtype
        scores.sub_((gradient.to(wide) * out.to(wide)).sum(-1, keepdim=True)).mul_(probabilities)
        bias_gradient = None
        if to_bias:
            # one bias serves all heads
            bias_gradient = scores.view(batch, heads, rows, -1).sum(1, keepdim=True).to(bias.dtype)
        scores = scores.to(query.dtype)
        query_gradient = key_gradient = None
        if to_query:
            query_gradient = torch.matmul(scores, key).mul_(ctx.scale).view(query.shape)
        if to_key:
            grouped = query.reshape(batch, key.shape[1], -1, width)
            key_gradient = _of_keys(scores, grouped, ctx.past).mul_(ctx.scale)
        return query_gradient, key_gradient, value_gradient, bias_gradient, None, None


def _of_keys(weights: Tensor, rows: Tensor, past: int) -> Tensor:
    """Sum `rows [B, K, R, D]` for every key by `weights [B, K, R, S]`: `[B, K, S, D]`, 0 for the first `past` keys."""
    if not past:
        return torch.matmul(weights.transpose(2, 3), rows)
    sums = rows.new_zeros(*weights.shape[:2], weights.shape[3], rows.shape[3])
    sums[:, :, past:] = torch.matmul(weights[..., past:].transpose(2, 3), rows)
    return sums
