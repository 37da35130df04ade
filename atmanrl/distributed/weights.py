"""One weight of a model: put into its place, and in the dtype that a copy of the model has it in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or a buffer by its whole name."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, tensor)


def narrowed(weight: Tensor, model: nn.Module, name: str, kind: torch.dtype | None) -> Tensor:
    """Return a weight in a dtype; None is its own, in which also those stay that the architecture wants to be wide."""
    return weight if kind is None or _stays_wide(model, name, kind) else weight.to(kind)


def _stays_wide(model: nn.Module, name: str, kind: torch.dtype) -> bool:
    """Say whether the architecture wants a weight in float32 whatever the rest is in, as transformers would load it."""
    lists = [getattr(model, "_keep_in_fp32_modules_strict", None)]
    if kind == torch.float16:
        lists.append(getattr(model, "_keep_in_fp32_modules", None))
    return any(f".{part}." in f".{name}." for names in lists for part in names or ())
