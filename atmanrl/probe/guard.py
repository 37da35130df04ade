"""The guard at the start of every probe: a model that the attention bias does not wholly reach is refused by name."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from atmanrl.errors import first_line
from atmanrl.models.layers import decoder_layers
from atmanrl.models.logits import logits_at
from atmanrl.models.modes import evaluating
from atmanrl.probe.attention import NOT_FINITE, Bias, ProbeError, attention_bias

_CHECKED: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()
"""Models that passed `check`, and with which backends."""
_SOFTMAX = ("full_attention", "sliding_attention", "chunked_attention")


class _NoBackward(Exception):
    """An operation of the model cannot be differentiated; the message is torch's."""


def check(model: Any) -> None:
    """Refuse a hooked model that the bias does not reach, or only in part, before any time is spent on it.

    It takes a few forward passes of four tokens, once for each model and backend.

    1. Every layer must heed the bias. Each layer's input is detached, so a layer whose output has no gradient in the bias
       ignores it, whatever its neighbours do. Layers without softmax attention (linear attention, convolutions) may.
    2. The gradient must reach the logits through every module with weights. Quantised weights are fine, since the mask
       needs only the gradient of activations (bitsandbytes has it); inference kernels that drop the gradient are not.
       Beside a residual connection, such a kernel would leave a gradient that is wrong and does not look it.
    3. Nothing may attend to later tokens.
    4. Logits must be the same whether they are computed at all positions or only at some.

    Raises:
        ProbeError: the message names the model's class, what is wrong, and what to do.
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
    layers = decoder_layers(model)
    bias = torch.full((1, 4, 4), -0.5, device=model.device, requires_grad=True)
    reached: dict[int, bool] = {}

    def detach(_: nn.Module, args: Any, kwargs: Any) -> Any:
        # attention must not meet a mask that alone needs a gradient, see `attention._input_with_gradient`
        if args:
            return (args[0].detach().requires_grad_(), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"].detach().requires_grad_()}

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
        inputs, outputs = _floats(args), _floats(output if isinstance(output, tuple) else (output,))
        if outputs and any(_depends(x, bias) for x in inputs) and not all(_depends(x, bias) for x in outputs):
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
    """Check that logits at some positions are what they are among all: Inkling mixes positions after its last mlp."""
    ids = _tiny_ids(model)
    last = torch.tensor([[False] * (ids.shape[1] - 1) + [True]], device=ids.device)
    among_all = model(input_ids=ids, use_cache=False).logits[0, -1:]
    alone = logits_at(model, last, input_ids=ids, use_cache=False)
    if (among_all - alone).abs().max() > 0.01 * among_all.abs().max():
        raise ProbeError(
            f"{type(model).__name__} mixes positions after its last feed-forward part: it cannot be probed."
        )


def _floats(values: Any) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _no_gradient(model: Any, where: str) -> str:
    method = getattr(getattr(model.config, "quantization_config", None), "quant_method", None)
    cause = f" ({getattr(method, 'value', method)} quantisation)" if method else ""
    advice = "load the model unquantised or dequantised to probe it" if method else "it cannot be probed"
    return f"{type(model).__name__}{cause} carries no gradient through {where}: {advice}."


def _tiny_ids(model: Any) -> Tensor:
    """Return four tokens, none of padding: its embedding is 0, and the norm of 0 has no finite gradient in float16."""
    config = model.config.get_text_config()
    ids = [i for i in range(5) if i != getattr(config, "pad_token_id", None)][:4]
    return torch.tensor([ids], device=model.device) % config.vocab_size


def _tiny_pass(model: Any, bias: Tensor) -> Tensor:
    ids = _tiny_ids(model)
    with attention_bias(Bias(bias, row=0, column=0)):
        logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits


def _depends(output: Tensor, bias: Tensor) -> bool:
    """Return whether autograd knows a path from `output` to `bias`; with trainable weights, everything requires grad."""
    if not output.requires_grad:
        return False
    try:
        return torch.autograd.grad(output.sum(), bias, retain_graph=True, allow_unused=True)[0] is not None
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # NotImplementedError is one
        raise _NoBackward(first_line(error)) from error


def _has_softmax(layer: nn.Module, kind: str | None) -> bool:
    return kind in (None, *_SOFTMAX) and any("Attention" in type(part).__name__ for part in layer.modules())


def _is_weighted_leaf(part: nn.Module) -> bool:
    if next(part.children(), None) is not None:
        return False
    buffers = any("weight" in name for name, _ in part.named_buffers())
    return buffers or next(part.parameters(), None) is not None
