"""Forward passes that compute logits only where they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from atmanrl.models.layers import usual_layers

Inputs = tuple[Tensor, ...]


def _selecting(where: Tensor) -> Callable[[nn.Module, Inputs], Inputs]:
    """A forward pre-hook that turns hidden states `[B, S, D]` into those at the K true positions, `[1, K, D]`."""

    def select(_: nn.Module, args: Inputs) -> Inputs:
        return (args[0][where].unsqueeze(0), *args[1:])

    return select


@contextmanager
def head_at(model: nn.Module, where: Tensor) -> Iterator[None]:
    """Let the language-model head see the positions `where` alone, whatever the architecture.

    The head costs vocabulary x hidden a position, and its logits are the largest tensor of a forward pass: with a
    vocabulary of 128k they outweigh everything else. What a model does to its logits afterwards (scaling, capping) is
    elementwise and stays as it is.

    Args:
        model: a Hugging Face causal language model; within the context its logits are `[1, K, V]`.
        where: `[B, S]` boolean with K true entries, in row-major order.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(_selecting(where))
    try:
        yield
    finally:
        handle.remove()


_LAST: ContextVar[tuple[nn.Module | None, Tensor] | None] = ContextVar("atmanrl_last_layer", default=None)
"""The last layer's attention, and the positions at which its output matters."""


def wanted_rows(attention: nn.Module) -> Tensor | None:
    """Return where `[B, S]` the output of an attention module matters, for functions that can make use of it.

    None where all of it does: outside of `last_layer_at`, and in every layer but the last.
    """
    last = _LAST.get()
    return last[1] if last is not None and last[0] is attention else None


@contextmanager
def last_layer_at(model: nn.Module, where: Tensor) -> Iterator[None]:
    """Let the last layer's feed-forward part see the positions `where` alone; elsewhere its output is 0.

    After the last layer's keys and values nothing mixes positions any more, so where no logits are asked for the rest of
    that layer is work for nothing. Its attention may leave those positions out too (see `wanted_rows`). A model whose
    layers are built otherwise is left as it is.

    Args:
        model: a Hugging Face causal language model.
        where: `[B, S]` boolean; the last hidden states and the logits are correct at these positions alone.
    """
    layers = usual_layers(model)
    last = None if layers is None else layers[-1]
    part = getattr(last, "mlp", None)
    if part is None:
        yield
        return

    def scatter(_: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return (scatter(_, args, output[0]), *output[1:])
        return output.new_zeros(*where.shape, output.shape[-1]).masked_scatter(where[..., None], output)

    token = _LAST.set((getattr(last, "self_attn", None), where))
    handles = [part.register_forward_pre_hook(_selecting(where)), part.register_forward_hook(scatter)]
    try:
        yield
    finally:
        _LAST.reset(token)
        for handle in handles:
            handle.remove()


def logits_at(model: nn.Module, where: Tensor, **inputs: Any) -> Tensor:
    """Return logits `[K, V]` at the K true positions of `where [B, S]`, in row-major order.

    `inputs` are passed to the model: `input_ids [B, S]`, `attention_mask`, `position_ids`, `past_key_values`.
    """
    with head_at(model, where), last_layer_at(model, where):
        logits: Tensor = model(**inputs).logits
    return logits[0]
