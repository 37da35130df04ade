"""Where a Hugging Face model keeps its layers, and what lies below its head: asked here and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from atmanrl.models.errors import PolicyError


def layers_of(model: nn.Module, path: str) -> nn.ModuleList:
    """Return the model's transformer layers.

    Args:
        model: a Hugging Face causal language model.
        path: its name, for messages.

    Raises:
        PolicyError: no list of modules is as long as the configuration says that there are layers.
    """
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise PolicyError(f"{path}: the layers of a {type(model).__name__} are not found.")


def usual_layers(model: nn.Module) -> nn.ModuleList | None:
    """Return layers of the usual kind, whose parts are called `self_attn` and `mlp`; None where there are none.

    Most families have them (Llama, Qwen, Gemma, ...). GPT-2, Bloom, OPT and others are built otherwise.
    """
    layers = getattr(model.base_model, "layers", None)
    return layers if isinstance(layers, nn.ModuleList) else None


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """Return every layer of every part of a model, in the order of its modules."""
    from transformers.modeling_layers import GradientCheckpointingLayer  # what all of them derive from

    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]


def below_head(model: Any) -> Any:
    """Return the model without its language-model head: token ids in, hidden states and keys and values out."""
    return model.base_model


def takes_positions(model: nn.Module) -> bool:
    """Return whether a model is told where each token stands, rather than counting the tokens before it."""
    return "position_ids" in inspect.signature(below_head(model).forward).parameters


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Let each layer compute its activations again in the backward pass, where its weights learn.

    Transformers' own switch does so in training mode only, and GRPO learns in eval mode. With frozen weights (the
    probe), with a cache or without gradients nothing changes.
    """

    def forward(layer: nn.Module, *args: Any, **inputs: Any) -> Any:
        plain = type(layer).forward
        learns = torch.is_grad_enabled() and any(weight.requires_grad for weight in layer.parameters())
        if not learns or inputs.get("past_key_values") is not None:
            return plain(layer, *args, **inputs)
        # the other kind, reentrant, loses gradients that reach a layer by its keyword arguments
        return checkpoint(plain, layer, *args, use_reentrant=False, **inputs)

    for layer in layers:
        layer.forward = MethodType(forward, layer)
