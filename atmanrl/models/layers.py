"""A model's layers and weights: activations computed again, and weights compared by name and shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from atmanrl.models.errors import PolicyError


def layers_of(model: nn.Module, path: str) -> nn.ModuleList:
    """The model's transformer layers.

    Raises:
        PolicyError: the model keeps them where none are known.
    """
    count = model.config.get_text_config().num_hidden_layers  # type: ignore[union-attr,operator]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise PolicyError(f"{path}: the layers of a {type(model).__name__} are not found.")


def difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Say where names or shapes of weights first differ from those of a model; None if they nowhere do.

    Example:
        `model.norm.weight has shape [7] instead of [32]`
    """
    for name, weight in expected.items():
        if name not in weights:
            return f"{name} is missing"
        if weights[name].shape != weight.shape:
            return f"{name} has shape {list(weights[name].shape)} instead of {list(weight.shape)}"
    return next((f"{name} is unknown" for name in weights if name not in expected), None)


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
