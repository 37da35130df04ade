"""`FloatScores`: a model's own attention, `eager` or `sdpa`, under a mask that is wider than what the model computes in.

A bias rounded to bfloat16 would stand still: near -4 its numbers are 0.016 apart and more, and the mask's optimizer moves
it by 0.01. And float32's least number is -inf in a narrower type: rows of padding, which see nothing, would then be NaN.
So masks are float32 under the attention hook, and the scores that they are added to become so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from atmanrl.models.numerics import without_autocast

_SDPA = nn.functional.scaled_dot_product_attention
_SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)
_MATMUL = (torch.matmul, Tensor.matmul, Tensor.__matmul__)
_NARROW = (torch.bfloat16, torch.float16)


class FloatScores(TorchFunctionMode):
    """Keeps scores to which a float32 mask was added in float32 until they are probabilities.

    - PyTorch's own attention is computed in its mask's dtype. Its kernels want one dtype for the mask and the rest, and
      autocast would round the mask.
    - A softmax that is asked for a narrower dtype (Falcon) narrows its result, not its input.
    - Probabilities that a model leaves in float32 (Llama4) are multiplied with narrower values in their dtype.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, with other dtypes where it would narrow scores."""
        kwargs = kwargs or {}
        if func is _SDPA:
            return _attention(func, *args, **kwargs)
        if func in _SOFTMAX and kwargs.get("dtype") in _NARROW and args and args[0].dtype == torch.float32:
            return func(*args, **kwargs | {"dtype": torch.float32}).to(kwargs["dtype"])
        if func in _MATMUL and args[0].dtype == torch.float32 and args[1].dtype in _NARROW:
            args = (args[0].to(args[1].dtype), *args[1:])
        return func(*args, **kwargs)


def _attention(
    sdpa: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    *args: Any, **options: Any,
) -> Tensor:  # fmt: skip
    if attn_mask is None or not attn_mask.is_floating_point():
        return sdpa(query, key, value, attn_mask, *args, **options)
    with without_autocast(attn_mask):
        states = (each.to(attn_mask.dtype) for each in (query, key, value))
        return sdpa(*states, attn_mask, *args, **options).to(value.dtype)
