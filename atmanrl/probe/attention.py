"""Adding a bias to a model's attention scores, through one hook for every architecture.

transformers builds the attention mask of every layer type with a function from one registry. While `attention_hook` is
open, those functions are wrapped: they build the model's own mask (causal, padded, sliding, ...) and add the current
bias. The model's code is not touched, sliding windows and cache offsets stay right, and threads that set no bias see
no difference.

The mask reaches softmax attention only. In a hybrid (Qwen3-Next, LFM2, ...) the linear-attention and convolution layers
carry reasoning to the answer past the mask, so saliency there speaks of the attention layers alone. Models without any
softmax attention (Mamba, RWKV) and those that make the mask boolean (Falcon with alibi, MPT) are refused by `check`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from atmanrl.errors import UserError
from atmanrl.forward import evaluating, logits_at
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


_CHECKED: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
"""Models that passed `check`, and with which backends."""
_SOFTMAX = ("full_attention", "sliding_attention", "chunked_attention")


class _NoBackward(Exception):
    """An operation of the model cannot be differentiated; the message is torch's."""


def check(model: Any) -> None:
    """Refuse a hooked model that the bias does not reach, or does not reach wholly, before any time is spent on it.

    A few forward passes of four tokens, once for each model and backend. In the first every layer's input is detached, so
    a layer whose output has no gradient in the bias ignores it, whatever its neighbours do. Layers that have no softmax
    attention by their nature may: linear attention, convolutions. In the second the gradient must find its way to the
    logits, through every module with weights: quantised weights are fine (the mask needs the gradient of activations
    only: bitsandbytes, for one, has it), but inference kernels that drop the gradient are not. Where a model has residual
    connections, such a kernel would leave a gradient that is wrong and looks like one. Nothing may attend to later tokens,
    and logits must be the same whether they are computed at all positions or at some.

    Raises:
        ProbeError: by the name of the model's class, what is wrong and what to do.
    """
    backend = model.config._attn_implementation
    if backend in _CHECKED.get(model, ()):
        return
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        try:
            _check_layers(model)
            _check_gradient(model)
            _check_positions(model)
        except _NoBackward as error:
            raise ProbeError(_no_gradient(model, "its layers") + f" ({error})") from error
    _CHECKED.setdefault(model, set()).add(backend)


def _check_layers(model: Any) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer  # what every decoder layer derives from

    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    bias = torch.full((1, 4, 4), -0.5, device=model.device, requires_grad=True)
    reached: dict[int, bool] = {}

    def detach(_: nn.Module, args: Any, kwargs: Any) -> Any:
        if args:
            return (args[0].detach(), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"].detach()}

    def note(layer: nn.Module, _: Any, output: Any) -> None:
        output = output if isinstance(output, Tensor) else output[0]
        reached[layers.index(layer)] = _depends(output, bias)

    handles = [layer.register_forward_pre_hook(detach, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(note) for layer in layers]
    try:
        logits = _tiny_pass(model, bias)
    finally:
        for handle in handles:
            handle.remove()
    name = type(model).__name__
    if not (any(reached.values()) if reached else _depends(logits, bias)):
        raise ProbeError(
            f"{name} ignores the attention bias (it has no softmax attention, or turns its mask boolean): it cannot be "
            "probed; choose a model with rotary or learned positions and ordinary attention."
        )
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or []
    kinds = dict(zip(reached, kinds, strict=False))
    deaf = [k for k, ok in reached.items() if not ok and _has_softmax(layers[k], kinds.get(k))]
    if deaf:
        raise ProbeError(
            f"{name} ignores the attention bias in {len(deaf)} of its {len(reached)} layers (the first: "
            f"{type(layers[deaf[0]]).__name__} {deaf[0]}): its saliency would be wrong, choose another model."
        )


def _check_gradient(model: Any) -> None:
    bias = torch.full((1, 4, 4), -0.5, device=model.device, requires_grad=True)
    broken: list[str] = []

    def note(part: nn.Module, args: Any, output: Any) -> None:
        given = [a for a in args if isinstance(a, Tensor) and a.is_floating_point()]
        made = [o for o in (output if isinstance(output, tuple) else (output,)) if isinstance(o, Tensor)]
        made = [o for o in made if o.is_floating_point()]
        if made and any(_depends(a, bias) for a in given) and not all(_depends(o, bias) for o in made):
            broken.append(type(part).__name__)

    # rotary tables are made of hidden states too, without a gradient and rightly so: look at modules with weights only
    handles = [part.register_forward_hook(note) for part in model.modules() if _is_weighted_leaf(part)]
    try:
        logits = _tiny_pass(model, bias)
        if not torch.isfinite(logits).all():
            raise ProbeError(NOT_FINITE)
        _depends(logits, bias)
        first = torch.autograd.grad(logits[:, 0].sum(), bias)[0]
    finally:
        for handle in handles:
            handle.remove()
    if broken:
        raise ProbeError(_no_gradient(model, broken[0]))
    if (first[..., 1:] != 0).any():  # the first token hears of attention to later ones
        raise ProbeError(f"{type(model).__name__} attends to later tokens; choose a causal decoder to probe it.")


@torch.no_grad()
def _check_positions(model: Any) -> None:
    """That logits at some positions are what they are among all: Inkling mixes positions after its last mlp."""
    ids = _tiny_ids(model)
    last = torch.tensor([[False] * (ids.shape[1] - 1) + [True]], device=ids.device)
    whole, part = (
        model(input_ids=ids, use_cache=False).logits[0, -1:],
        logits_at(model, last, input_ids=ids, use_cache=False),
    )
    if (whole - part).abs().max() > 0.01 * whole.abs().max():
        raise ProbeError(
            f"{type(model).__name__} mixes positions after its last feed-forward part: it cannot be probed."
        )


def _no_gradient(model: Any, where: str) -> str:
    method = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    cause = f" ({getattr(method, 'value', method)} quantisation)" if method else ""
    advice = "load the model unquantised or dequantised to probe it" if method else "it cannot be probed"
    return f"{type(model).__name__}{cause} carries no gradient through {where}: {advice}."


def _tiny_ids(model: Any) -> Tensor:
    return torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size


def _tiny_pass(model: Any, bias: Tensor) -> Tensor:
    ids = _tiny_ids(model)
    with attention_bias(Bias(bias, row=0, column=0)):
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits


def _depends(output: Tensor, bias: Tensor) -> bool:
    """Whether autograd knows a way from `output` to `bias` (weights that are trainable make everything require grad)."""
    if not output.requires_grad:
        return False
    try:
        return torch.autograd.grad(output.sum(), bias, retain_graph=True, allow_unused=True)[0] is not None
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # NotImplementedError is one
        raise _NoBackward(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error


def _has_softmax(layer: nn.Module, kind: str | None) -> bool:
    return kind in (None, *_SOFTMAX) and any("Attention" in type(part).__name__ for part in layer.modules())


def _is_weighted_leaf(part: nn.Module) -> bool:
    if next(part.children(), None) is not None:
        return False
    buffers = any("weight" in name for name, _ in part.named_buffers())
    return buffers or next(part.parameters(), None) is not None


def can_share_cache(cache: Any) -> bool:
    """Whether a prompt's cache can be given to several rollouts: only if it holds keys and values and nothing else.

    Convolution and linear-attention layers keep a running state, changed in place, that takes no account of padding on
    the left; models with such layers (Qwen3-Next, LFM2) read the prompt again in every pass.
    """
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return isinstance(cache, Cache) and all(type(layer) in plain for layer in getattr(cache, "layers", [None]))
