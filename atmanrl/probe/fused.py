"""The attention of `probe.lean` as three Triton kernels, for bf16 and float16 on a GPU: no score leaves the chip.

Written out, a layer's scores are read and written some twenty times for one gradient; here each block of them is computed
where it is used, as in flash attention (Dao et al. 2022, algorithms 1 and 4), with what flash attention's kernels do not
have: a float32 bias with a gradient, shared by all heads. Products are of the inputs' dtype with float32 sums; scores, bias,
softmax and every sum are float32. Nothing is added up in an order that changes from run to run: the bias's gradient is
summed over the heads that share keys within a program, and over those programs afterwards.
"""

# what a kernel is handed are Triton's tensors and compile-time constants, for which there are no types
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-3.4028234663852886e38)
"""Below it there is no float32: two masks that hide a key add up to minus infinity, and padding sees no key at all."""
VARYING = ["rows", "keys", "past", "first", "bb", "br"]
"""Sizes that change from batch to batch: kernels are not compiled anew for those that 16 divides."""
BLOCK = 64
"""Rows and keys of a block."""
WIDEST = 128
"""Most numbers of a head that the kernels' registers hold."""


def fits(query: Tensor, value: Tensor) -> bool:
    """Return whether the kernels compute this attention: half precision on a GPU, heads of equal width up to `WIDEST`."""
    return query.is_cuda and query.element_size() == 2 and query.shape[-1] == value.shape[-1] <= WIDEST


class FusedAttention(torch.autograd.Function):
    """Attention `[B, H, R, D]` of queries `[B, H, R, D]` on keys and values `[B, K, S, D]` with a bias `[B, 1, R, S]`.

    The first `past` keys, values and columns of the bias get a gradient of 0.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, past: int
    ) -> Tensor:  # fmt: skip
        """Compute the output."""
        query, key, value = (_rows_of_numbers(states) for states in (query, key, value))
        batch, heads, rows, width = query.shape
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        sums = query.new_empty(batch, heads, rows, dtype=torch.float32)
        _forward[triton.cdiv(rows, BLOCK), batch * heads](
            query, key, value, bias, out, sums, *_strides(query, key, value, bias), rows, key.shape[2], scale, heads,
            key.shape[1], width, _padded(width), BLOCK, BLOCK, num_warps=4,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, bias, out, sums)
        ctx.scale, ctx.past = scale, past
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients that are asked for."""
        query, key, value, bias, out, sums = ctx.saved_tensors
        batch, heads, rows, width = query.shape
        groups, keys = key.shape[1:3]
        # of the softmax: its gradient is p (dp - sum_j p_j dp_j), and that sum is o do
        gradient = gradient.contiguous()
        delta = (gradient.float() * out.float()).sum(-1)
        strides = _strides(query, key, value, bias)
        sizes = (rows, keys, ctx.scale, heads, groups, width, _padded(width))
        to_query = torch.empty_like(out) if ctx.needs_input_grad[0] else None
        if to_query is not None:
            _backward_queries[triton.cdiv(rows, BLOCK), batch * heads](
                query, key, value, bias, gradient, sums, delta, to_query, *strides, *sizes, BLOCK, BLOCK, num_warps=4
            )
        states, masks = any(ctx.needs_input_grad[1:3]), ctx.needs_input_grad[3]
        to_key = torch.zeros_like(key, memory_format=torch.contiguous_format) if states else None
        to_value = None if to_key is None else torch.zeros_like(to_key)
        to_bias = torch.zeros(batch, groups, rows, keys, device=query.device) if masks else None
        first = ctx.past // BLOCK
        if (states or masks) and keys > ctx.past:
            _backward_keys[triton.cdiv(keys, BLOCK) - first, batch * groups](
                query, key, value, bias, gradient, sums, delta, to_key, to_value, to_bias, *strides, *sizes, BLOCK,
                BLOCK, ctx.past, first, states, masks, num_warps=8,
            )  # fmt: skip
        of_bias = None if to_bias is None else to_bias.sum(1, keepdim=True).to(bias.dtype)
        return to_query, to_key, to_value, of_bias, None, None


def _padded(width: int) -> int:
    """A power of two, and no less than a tensor core's 16."""
    return max(16, triton.next_power_of_2(width))


def _rows_of_numbers(states: Tensor) -> Tensor:
    """The kernels read a head's numbers as neighbours; rows, heads and sequences may lie anywhere."""
    return states if states.stride(-1) == 1 else states.contiguous()


def _strides(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[int, ...]:
    across = (0 if bias.shape[0] == 1 else bias.stride(0), *bias.stride()[2:])
    return (*query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *across)


@triton.jit
def _tile(pointer, rows, columns, row_stride, row_end, column_end):
    """Rows of neighbouring numbers, 0 beyond the ends."""
    inside = (rows[:, None] < row_end) & (columns[None, :] < column_end)
    return tl.load(pointer + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _scores(query, key, bias, rows, columns, row_stride, column_stride, row_end, column_end, scale):
    """Biased scores of a block; minus infinity beyond the last key."""
    inside = (rows[:, None] < row_end) & (columns[None, :] < column_end)
    place = bias + rows[:, None] * row_stride + columns[None, :] * column_stride
    scores = tl.dot(query, tl.trans(key)) * scale + tl.load(place, mask=inside, other=0.0).to(tl.float32)
    return tl.where(columns[None, :] < column_end, tl.maximum(scores, LOWEST), float("-inf"))


@triton.jit(do_not_specialize=VARYING)
def _forward(
    query, key, value, bias, out, sums,
    qb, qh, qr, kb, kh, kr, vb, vh, vr, bb, br, bs,
    rows, keys, scale, heads, groups, width, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """The output of a block of rows of one head, and the logarithm of its softmax's denominator."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    group = head // (heads // groups)
    row, number = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    q = _tile(query + batch * qb + head * qh, row, number, qr, rows, width)
    key += batch * kb + group * kh
    value += batch * vb + group * vh
    most = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, keys, KEYS):
        column = start + tl.arange(0, KEYS)
        k = _tile(key, column, number, kr, keys, width)
        scores = _scores(q, k, bias + batch * bb, row, column, br, bs, rows, keys, scale)
        higher = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2((scores - higher[:, None]) * LOG2E)
        shrink = tl.exp2((most - higher) * LOG2E)
        v = _tile(value, column, number, vr, keys, width)
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        most = higher
    inside = (row[:, None] < rows) & (number[None, :] < width)
    at = (batch * heads + head) * rows + row
    tl.store(
        out + at[:, None] * width + number[None, :], (mixed / total[:, None]).to(out.dtype.element_ty), mask=inside
    )
    tl.store(sums + at, most + tl.log(total), mask=row < rows)


@triton.jit(do_not_specialize=VARYING)
def _backward_queries(
    query, key, value, bias, gradient, sums, delta, to_query,
    qb, qh, qr, kb, kh, kr, vb, vh, vr, bb, br, bs,
    rows, keys, scale, heads, groups, width, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """The gradient of a block of queries of one head."""
    batch, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    group = head // (heads // groups)
    row, number = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, WIDTH)
    at = (batch * heads + head) * rows
    q = _tile(query + batch * qb + head * qh, row, number, qr, rows, width)
    do = _tile(gradient + at * width, row, number, width, rows, width)
    log_total = tl.load(sums + at + row, mask=row < rows, other=0.0)
    mean = tl.load(delta + at + row, mask=row < rows, other=0.0)
    key += batch * kb + group * kh
    value += batch * vb + group * vh
    dq = tl.zeros([ROWS, WIDTH], tl.float32)
    for start in range(0, keys, KEYS):
        column = start + tl.arange(0, KEYS)
        k = _tile(key, column, number, kr, keys, width)
        v = _tile(value, column, number, vr, keys, width)
        scores = _scores(q, k, bias + batch * bb, row, column, br, bs, rows, keys, scale)
        weights = tl.exp2((scores - log_total[:, None]) * LOG2E)
        ds = weights * (tl.dot(do, tl.trans(v)) - mean[:, None])
        dq += tl.dot(ds.to(k.dtype), k)
    inside = (row[:, None] < rows) & (number[None, :] < width)
    place = to_query + (at + row)[:, None] * width + number[None, :]
    tl.store(place, (dq * scale).to(to_query.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=VARYING)
def _backward_keys(
    query, key, value, bias, gradient, sums, delta, to_key, to_value, to_bias,
    qb, qh, qr, kb, kh, kr, vb, vh, vr, bb, br, bs,
    rows, keys, scale, heads, groups, width, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    past, first, STATES: tl.constexpr, MASKS: tl.constexpr,
):  # fmt: skip
    """The gradients of a block of keys and values of one group, and of the bias on them by that group's heads."""
    batch, group = (tl.program_id(1) // groups).to(tl.int64), tl.program_id(1) % groups
    column, number = (first + tl.program_id(0)) * KEYS + tl.arange(0, KEYS), tl.arange(0, WIDTH)
    k = _tile(key + batch * kb + group * kh, column, number, kr, keys, width)
    v = _tile(value + batch * vb + group * vh, column, number, vr, keys, width)
    dk = tl.zeros([KEYS, WIDTH], tl.float32)
    dv = tl.zeros([KEYS, WIDTH], tl.float32)
    wanted = (column >= past) & (column < keys)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        db = tl.zeros([ROWS, KEYS], tl.float32)
        for head in range(group * (heads // groups), (group + 1) * (heads // groups)):
            at = (batch * heads + head) * rows
            q = _tile(query + batch * qb + head * qh, row, number, qr, rows, width)
            do = _tile(gradient + at * width, row, number, width, rows, width)
            log_total = tl.load(sums + at + row, mask=row < rows, other=0.0)
            mean = tl.load(delta + at + row, mask=row < rows, other=0.0)
            scores = _scores(q, k, bias + batch * bb, row, column, br, bs, rows, keys, scale)
            weights = tl.exp2((scores - log_total[:, None]) * LOG2E)
            # beyond the last row `sums` says nothing: its weights could overflow, and infinity times 0 is no number
            weights = tl.where(row[:, None] < rows, weights, 0.0)
            ds = weights * (tl.dot(do, tl.trans(v)) - mean[:, None])
            if STATES:
                dv += tl.dot(tl.trans(weights.to(do.dtype)), do)
                dk += tl.dot(tl.trans(ds.to(q.dtype)), q)
            db += ds
        if MASKS:
            place = to_bias + ((batch * groups + group) * rows + row)[:, None] * keys + column[None, :]
            tl.store(place, db, mask=(row[:, None] < rows) & wanted[None, :])
    if STATES:
        at = ((batch * groups + group) * keys + column)[:, None] * width + number[None, :]
        inside = wanted[:, None] & (number[None, :] < width)
        tl.store(to_key + at, (dk * scale).to(to_key.dtype.element_ty), mask=inside)
        tl.store(to_value + at, dv.to(to_value.dtype.element_ty), mask=inside)
