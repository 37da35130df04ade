"""Attention masks with room below them: a score that is added to the lowest number must not become -inf.

A row of padding sees nothing, and where all of its scores are -inf its softmax is NaN. transformers' float masks hold the
lowest number of their dtype. In float16 that is -65504, and -16 more is -inf; float64's is -inf in float32, in which eager
attention takes its softmax. Importing this module gives transformers' `eager` masks that room, for every model: what is
masked has probability 0 all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask


def lowest(dtype: torch.dtype) -> float:
    """Return what a mask of a dtype holds where nothing is attended to."""
    if dtype == torch.float16:
        return torch.finfo(dtype).min / 2
    return torch.finfo(torch.float32 if dtype == torch.float64 else dtype).min


def clamped(build: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Return a mask function whose float masks go down to `lowest` and no further."""

    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        scores = build(*args, **kwargs)
        if scores is None or scores.dtype not in (torch.float16, torch.float64):
            return scores
        return scores.clamp(min=lowest(scores.dtype))

    return mask


ALL_MASK_ATTENTION_FUNCTIONS.register("eager", clamped(eager_mask))
