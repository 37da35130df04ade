"""In which dtype sums and products are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 for float64: what scores, probabilities and sums are computed in."""
    return torch.promote_types(dtype, torch.float32)


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Return a context in which operations on the tensor's device keep to the dtypes of their inputs.

    Mixed precision lowers products of float32 tensors (`matmul`, `vecdot`, attention) without a word.
    """
    return torch.autocast(tensor.device.type, enabled=False)
