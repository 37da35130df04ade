"""Adding a bias to a model's attention scores, through one hook for every architecture.

transformers builds the attention mask of every layer type with a function from one registry. While `attention_hook` is
open, those functions are wrapped: they build the model's own mask (causal, padded, sliding, ...) and add the current
bias. The model's code is not touched, sliding windows and cache offsets stay right, and threads that set no bias see
no difference.

Under the hook masks are float32 at least, whatever the model computes in, and so are the scores that they are added to:
`lean` sees to it itself, `FloatScores` to what `eager` and `sdpa` do.

The mask reaches softmax attention only. In a hybrid (Qwen3-Next, LFM2, ...) the linear-attention and convolution layers
carry reasoning to the answer past the mask, so saliency there speaks of the attention layers alone. Models without any
softmax attention (Mamba, RWKV) and those that make the mask boolean (Falcon with alibi, MPT) are refused by `guard.check`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atmanrl.errors import UserError
from atmanrl.models.masks import lowest
from atmanrl.models.numerics import widened
from atmanrl.probe.float_scores import FloatScores
from atmanrl.probe.lean import lean_attention

BACKENDS = ("lean", "eager", "sdpa")
"""Attention implementations that accept a float mask with a gradient."""
NOT_FINITE = "the model's logits are not finite: it cannot be probed in this precision."
ALL_ATTENTION_FUNCTIONS.register("lean", lean_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("lean", ALL_MASK_ATTENTION_FUNCTIONS["eager"])


class ProbeError(UserError):
    """A model or a rollout cannot be probed; the message says why."""


@dataclass(frozen=True)
class Bias:
    """What is added to attention scores before the softmax.

    Attributes:
        values: `[B, R, C]`, for R query rows and C key columns.
        row: absolute position (padding counted) of the first row.
        column: absolute position of the first column.

    Example:
        Behind a prompt of 7 tokens, for a tail of 5 tokens of which the first 3 are the reasoning:
        `Bias(values=torch.full((1, 5, 3), -4.0), row=7, column=7)`
    """

    values: Tensor
    row: int
    column: int

    def placed(self, rows: range, columns: range) -> Tensor:
        """Return the bias on a block of the score matrix, `[B, 1, len(rows), len(columns)]`, 0 where it has no values."""
        height, width = self.values.shape[-2:]
        top, left = max(rows.start, self.row), max(columns.start, self.column)
        bottom, right = min(rows.stop, self.row + height), min(columns.stop, self.column + width)
        if top >= bottom or left >= right:
            return self.values.new_zeros(len(self.values), 1, len(rows), len(columns))
        inside = self.values[:, None, top - self.row : bottom - self.row, left - self.column : right - self.column]
        around = (left - columns.start, columns.stop - right, top - rows.start, rows.stop - bottom)
        return nn.functional.pad(inside, around)


_BIAS: ContextVar[Bias | None] = ContextVar("atmanrl_attention_bias", default=None)
_HOOKS: ContextVar[int] = ContextVar("atmanrl_attention_hooks", default=0)
"""How many hooks are open in this thread."""


def _with_bias(build: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    def mask(batch_size: int, q_length: int, kv_length: int, **kwargs: Any) -> Tensor | None:
        sizes = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length}
        if not _HOOKS.get():
            return build(**sizes, **kwargs)
        dtype = widened(kwargs.get("dtype", torch.float32))
        kwargs |= {"dtype": dtype, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        own = build(**sizes, **kwargs)
        assert own is not None
        if own.dtype == torch.bool:
            own = torch.zeros(own.shape, dtype=dtype, device=own.device).masked_fill_(~own, lowest(dtype))
        bias = _BIAS.get()
        if bias is None:
            return own
        q, kv = int(kwargs.get("q_offset", 0)), int(kwargs.get("kv_offset", 0))
        return own + bias.placed(range(q, q + q_length), range(kv, kv + kv_length)).to(dtype)

    return mask


def _input_with_gradient(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
    """Make the input of the first layer require a gradient wherever the bias does.

    The weights are frozen, so in the first layer only the mask would require one. CUDA's memory-efficient attention looks
    at query, key and value to see whether a backward pass follows; if none of them requires a gradient, its backward pass
    reads memory that was never written (pytorch #148476).
    """
    bias = _BIAS.get()
    wanted = torch.is_grad_enabled() and bias is not None and bias.values.requires_grad and not embedded.requires_grad
    return embedded.detach().requires_grad_() if wanted else embedded


@contextmanager
def _in_float(model: Any, backend: str) -> Iterator[None]:
    """Let the model's own attention compute its scores in float32."""
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_hook(_input_with_gradient) if backend == "sdpa" else None
    try:
        with FloatScores() if backend != "lean" else nullcontext():
            yield
    finally:
        if handle is not None:
            handle.remove()


_LOCK = threading.Lock()
_OPEN: dict[str, tuple[int, Callable[..., Tensor | None]]] = {}
"""How many hooks are open on a backend, and the mask function that it had before the first."""


@contextmanager
def _registered(backend: str) -> Iterator[None]:
    """Wrap the backend's mask function: once, however many hooks are open, until the last of them closes."""
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
    """Return those of `BACKENDS` that the model can run: Gemma2 and gpt-oss have no sdpa, Bloom and Falcon cannot change."""
    if not model._can_set_attn_implementation():
        return tuple(name for name in BACKENDS if name == model.config._attn_implementation)
    return BACKENDS if all(getattr(part, "_supports_sdpa", True) for part in model.modules()) else ("eager",)


def choose_backend(model: Any) -> str:
    """Return the backend to probe a model with: the first of `BACKENDS` that it can run.

    On a CPU that is the order of their speed (`experiments/benchmarks/probe_scaling.py`). On a GPU, `lean` computes
    products in the model's own dtype, and `sdpa` in float32.

    Raises:
        ProbeError: the model can run none of them.
    """
    possible = backends(model)
    if not possible:
        raise ProbeError(
            f"{type(model).__name__} cannot leave {model.config._attn_implementation} attention, which takes no bias with a "
            "gradient: load it with attn_implementation: eager to probe it."
        )
    return possible[0]


@contextmanager
def attention_hook(model: Any, backend: str) -> Iterator[None]:
    """Let `attention_bias` reach `model`, which runs with `backend` attention within; afterwards it is as it was.

    Hooks may be nested, and may be open in several threads: the bias is added only once.

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
    before = model.config._attn_implementation
    try:
        if before != backend:
            model.set_attn_implementation(backend)
        _HOOKS.set(_HOOKS.get() + 1)
        try:
            with _registered(backend), _in_float(model, backend):
                yield
        finally:
            _HOOKS.set(_HOOKS.get() - 1)
    finally:
        if model.config._attn_implementation != before:
            model.set_attn_implementation(before)


@contextmanager
def attention_bias(bias: Bias) -> Iterator[None]:
    """Add `bias` to the scores of every layer and head, in forward passes of a hooked model within this context."""
    token = _BIAS.set(bias)
    try:
        yield
    finally:
        _BIAS.reset(token)
