"""Weights: files that cannot be read, and two sets of weights compared by name and shape."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atmanrl.errors import first_line

UNSAFE = "it holds more than tensors and plain values, or is damaged; what could run code is never loaded."
"""Of a file that `torch.load(weights_only=True)` refuses, whose own message is a page on how to load it all the same."""

LFS_POINTER = b"version https://git-lfs"


def is_pointer(file: Path) -> bool:
    """Return whether Git LFS has left its pointer where a file should be."""
    with file.open("rb") as opened:
        return opened.read(len(LFS_POINTER)) == LFS_POINTER


def damaged_weights(folder: Path) -> str | None:
    """Return which file of weights in a folder cannot be read, and what to do; None if there is none."""
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        if is_pointer(file):
            return f"{file} is a Git LFS pointer and not the weights; fetch them by `git lfs pull`."
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
            else:
                torch.load(file, map_location="meta", weights_only=True)
        except pickle.UnpicklingError:
            return f"{file} cannot be read: {UNSAFE}"
        except (SafetensorError, RuntimeError, EOFError) as error:
            return f"{file} is cut off or damaged ({first_line(error)}); copy it anew."
    return None


def difference(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """Return where names or shapes of weights first differ from those of a model; None if they nowhere do.

    Example:
        `model.norm.weight has shape [7] instead of [32]`
    """
    for name, weight in expected.items():
        if name not in weights:
            return f"{name} is missing"
        if weights[name].shape != weight.shape:
            return f"{name} has shape {list(weights[name].shape)} instead of {list(weight.shape)}"
    return next((f"{name} is unknown" for name in weights if name not in expected), None)
