"""Adding a bias to a model's attention scores, through one hook for every architecture.

transformers builds the attention mask of every layer type with a function from one registry. While `attention_hook` is
open, those functions are wrapped: they build the model's own mask (causal, padded, sliding, ...) and add the current
bias. The model's code is not touched, sliding windows and cache offsets stay right, and threads that set no bias see
no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from atmanrl.errors import UserError

BACKENDS = ("eager", "sdpa")
"""Attention implementations that accept a float mask with a gradient."""


class ProbeError(UserError):
    """A model or a rollout cannot be probed; the message says why."""


@dataclass(frozen=True)
class Bias:
    """What is added to the pre-softmax scores.

    Attributes:
        values: `[B, R, C]`, for R query rows and C key columns.
        row: absolute position (padding counted) of the first row.
        column: absolute position of the first column.
    """

    values: Tensor
    row: int
    column: int

    def placed(self, rows: range, columns: range) -> Tensor:
        """The part that lies in a block of the score matrix, `[B, 1, len(rows), len(columns)]`, 0 elsewhere."""
        height, width = self.values.shape[-2:]
        top, left = max(rows.start, self.row), max(columns.start, self.column)
        bottom, right = min(rows.stop, self.row + height), min(columns.stop, self.column + width)
        if top >= bottom or left >= right:
            return self.values.new_zeros(len(self.values), 1, len(rows), len(columns))
        inside = self.values[:, None, top - self.row : bottom - self.row, left - self.column : right - self.column]
        around = (left - columns.start, columns.stop - right, top - rows.start, rows.stop - bottom)
        return nn.functional.pad(inside, around)


_BIAS: ContextVar[Bias | None] = ContextVar("atmanrl_attention_bias", default=None)


def _with_bias(build: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    def mask(batch_size: int, q_length: int, kv_length: int, **kwargs: Any) -> Tensor | None:
        bias = _BIAS.get()
        if bias is not None:
            kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        own = build(batch_size=batch_size, q_length=q_length, kv_length=kv_length, **kwargs)
        if own is not None and own.dtype == torch.float64:
            # eager attention rounds scores to float32: float64's least number becomes -inf there, a row of padding NaN
            own = own.clamp(min=torch.finfo(torch.float32).min)
        if bias is None:
            return own
        assert own is not None
        dtype = kwargs.get("dtype", torch.float32)
        if own.dtype == torch.bool:
            own = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill_(~own, torch.finfo(dtype).min)
        q, kv = int(kwargs.get("q_offset", 0)), int(kwargs.get("kv_offset", 0))
        return own + bias.placed(range(q, q + q_length), range(kv, kv + kv_length)).to(dtype)

    return mask


@contextmanager
def attention_hook(model: Any, backend: str) -> Iterator[None]:
    """Let `attention_bias` reach `model`, which runs with `backend` attention meanwhile; then all is as it was.

    Raises:
        ProbeError: the backend has no float mask, or the model cannot change to it.
    """
    if backend not in BACKENDS:
        raise ProbeError(f"attention {backend!r} takes no bias with a gradient; choose one of {', '.join(BACKENDS)}.")
    found = model.config._attn_implementation
    original = ALL_MASK_ATTENTION_FUNCTIONS[backend]
    try:
        if found != backend:
            model.set_attn_implementation(backend)
            if model.config._attn_implementation != backend:
                raise ProbeError(f"{type(model).__name__} cannot run with {backend} attention, so it cannot be probed.")
        ALL_MASK_ATTENTION_FUNCTIONS.register(backend, _with_bias(original))
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS.register(backend, original)
        if model.config._attn_implementation != found:
            model.set_attn_implementation(found)


@contextmanager
def attention_bias(bias: Bias) -> Iterator[None]:
    """Forward passes of a hooked model inside this context add `bias` to the scores of every layer and head."""
    token = _BIAS.set(bias)
    try:
        yield
    finally:
        _BIAS.reset(token)
