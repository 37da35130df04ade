"""Adding a bias to a model's attention scores, through one hook for every architecture.

transformers builds the attention mask of every layer type with a function from one registry. While `attention_hook` is
open, those functions are wrapped: they build the model's own mask (causal, padded, sliding, ...) and add the current
bias. The model's code is not touched, sliding windows and cache offsets stay right, and threads that set no bias see
no difference.

The mask reaches softmax attention only. In a hybrid (Qwen3-Next, LFM2, ...) the linear-attention and convolution layers
carry reasoning to the answer past the mask, so saliency there speaks of the attention layers alone. Models without any
softmax attention (Mamba, RWKV) and those that make the mask boolean (Falcon with alibi, MPT) are refused by `guard.check`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atmanrl.errors import UserError
from atmanrl.probe.lean import lean_attention

BACKENDS = ("lean", "eager", "sdpa")
"""Attention implementations that accept a float mask with a gradient."""
NOT_FINITE = "the model's logits are not finite: it cannot be probed in this precision."
ALL_ATTENTION_FUNCTIONS.register("lean", lean_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("lean", eager_mask)


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


_LOCK = threading.Lock()
_OPEN: dict[str, tuple[int, Callable[..., Tensor | None]]] = {}
"""How many hooks are open on a backend, and the mask function that it had before the first."""


@contextmanager
def _registered(backend: str) -> Iterator[None]:
    """The backend's mask function wrapped: once, however many hooks are open, and until the last of them closes."""
    with _LOCK:
        count, original = _OPEN.get(backend, (0, ALL_MASK_ATTENTION_FUNCTIONS[backend]))
        _OPEN[backend] = count + 1, original
        if count == 0:
            ALL_MASK_ATTENTION_FUNCTIONS.register(backend, _with_bias(original))
    try:
        yield
    finally:
        with _LOCK:
            count, original = _OPEN.pop(backend)
            if count > 1:
                _OPEN[backend] = count - 1, original
            else:
                ALL_MASK_ATTENTION_FUNCTIONS.register(backend, original)


def backends(model: Any) -> tuple[str, ...]:
    """Those of `BACKENDS` that the model can run: Gemma2 and gpt-oss have no sdpa, Bloom and Falcon cannot change."""
    if not model._can_set_attn_implementation():
        return tuple(name for name in BACKENDS if name == model.config._attn_implementation)
    return BACKENDS if all(getattr(part, "_supports_sdpa", True) for part in model.modules()) else ("eager",)


def choose_backend(model: Any, device: torch.device) -> str:
    """The backend to probe a model with: the first that it can run of lean, eager on a CPU, of sdpa, lean, eager elsewhere.

    On a CPU that is the order of their speed (`experiments/benchmarks/probe_scaling.py`); on a GPU sdpa has a kernel for a
    bias with a gradient.

    Raises:
        ProbeError: the model can run none of them.
    """
    possible = backends(model)
    if not possible:
        raise ProbeError(
            f"{type(model).__name__} cannot leave {model.config._attn_implementation} attention, which takes no bias with a "
            "gradient: load it with attn_implementation: eager to probe it."
        )
    order = BACKENDS if device.type == "cpu" else ("sdpa", "lean", "eager")
    return next(name for name in order if name in possible)


@contextmanager
def attention_hook(model: Any, backend: str) -> Iterator[None]:
    """Let `attention_bias` reach `model`, which runs with `backend` attention meanwhile; then all is as it was.

    Hooks may be nested, and may be open in several threads: the bias is added once.

    Raises:
        ProbeError: the backend has no float mask, or the model cannot change to it.
    """
    if backend not in BACKENDS:
        raise ProbeError(f"attention {backend!r} takes no bias with a gradient; choose one of {', '.join(BACKENDS)}.")
    possible = backends(model)
    if backend not in possible:
        advice = (
            f"choose attention: {possible[0]}" if possible else "load it with attn_implementation: eager to probe it"
        )
        raise ProbeError(f"{type(model).__name__} cannot run with {backend} attention; {advice}.")
    found = model.config._attn_implementation
    try:
        if found != backend:
            model.set_attn_implementation(backend)
        with _registered(backend):
            yield
    finally:
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


def can_share_cache(cache: Any) -> bool:
    """Whether a prompt's cache can be given to several rollouts: only if it holds keys and values and nothing else.

    Convolution and linear-attention layers keep a running state, changed in place, that takes no account of padding on
    the left; models with such layers (Qwen3-Next, LFM2) read the prompt again in every pass.
    """
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, Cache) and all(type(layer) in plain for layer in getattr(cache, "layers", [None]))
