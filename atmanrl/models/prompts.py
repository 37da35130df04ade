"""`SharedPrompts`: a prompt is read once for all of its rollouts, and learns from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from atmanrl.models.batching import right_padded
from atmanrl.models.cache import can_share_cache, fork, read_prompts
from atmanrl.models.logits import last_layer_at


class SharedPrompts:
    """Keys and values of Q prompts, with a gradient that is gathered over several passes and led back in one.

    Eight rollouts of a prompt would compute the same keys and values eight times, forward and backward. Here they are
    computed once; each pass over some rollouts adds its gradient to them, and `backward` hands the sum on to the
    weights. The gradient is the same but for rounding.

    Args:
        model: a Hugging Face causal language model.
        prompts: token ids of Q prompts, none of them empty.
        pad_id: the token on the right of shorter prompts; nothing attends to it.
        device: of the model.

    Attributes:
        shared: whether the model's cache holds plain keys and values for all of its layers; if not (sliding windows,
            running states), `select` must not be called.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> None:
        ids, self.mask = (each.to(device) for each in right_padded(prompts, pad_id))
        nowhere = torch.zeros_like(self.mask, dtype=torch.bool)
        with last_layer_at(model, nowhere):  # of the last layer keys and values alone are needed
            self.cache = read_prompts(model, ids, self.mask)
        self.shared = can_share_cache(self.cache, windows=False)
        self._read: list[Tensor] = []
        self._leaves: list[Tensor] = []
        if self.shared:
            for layer in self.cache.layers:
                layer.keys, layer.values = self._leaf(layer.keys), self._leaf(layer.values)

    def select(self, prompts: Tensor) -> tuple[Any, Tensor]:
        """Return a copy of the cache, for a forward pass to change, and the attention mask `[B, P]`, of `prompts [B]`."""
        return fork(self.cache, prompts), self.mask[prompts]

    def backward(self) -> None:
        """Lead the gradients that the passes have left on keys and values back to the weights."""
        reached = [
            (read, leaf.grad) for read, leaf in zip(self._read, self._leaves, strict=True) if leaf.grad is not None
        ]
        if reached:
            torch.autograd.backward(*map(list, zip(*reached, strict=True)))  # type: ignore[arg-type]
        self._read, self._leaves = [], []

    def _leaf(self, read: Tensor) -> Tensor:
        if not read.requires_grad:
            return read
        self._read.append(read)
        self._leaves.append(read.detach().requires_grad_())
        return self._leaves[-1]
