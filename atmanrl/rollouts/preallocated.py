"""A key-value cache with room for the tokens to come: Hugging Face's own is copied whole for every token."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from atmanrl.models.cache import is_filled, repeat_rows

ROOM = 64
"""Positions that are added at once. All of `max_new_tokens` would be faster by little, and often unused."""


class PreallocatedLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values stand in buffers with room for tokens to come.

    Args:
        layer: the layer whose keys and values `[Q, heads, S, D]` it takes over.
        group: how often each row is repeated.
    """

    def __init__(self, layer: DynamicLayer, group: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.length = layer.keys.shape[-2]
        self._keys, self._values = _with_room(layer.keys, group), _with_room(layer.values, group)
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the next positions, `[B, heads, N, D]`; returns all keys and values so far."""
        begin, end = self.length, self.length + key_states.shape[-2]
        if end > self._keys.shape[-2]:
            self._keys, self._values = _with_room(self.keys), _with_room(self.values)
        self._keys[..., begin:end, :] = key_states
        self._values[..., begin:end, :] = value_states
        self.length = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        self._keys, self._values = self._keys[indices], self._values[indices]
        self._show()

    def _show(self) -> None:
        self.keys, self.values = self._keys[..., : self.length, :], self._values[..., : self.length, :]


def _with_room(states: Tensor, group: int = 1) -> Tensor:
    """A buffer that begins with `states [Q, heads, S, D]`, each row repeated `group` times."""
    queries, heads, length, size = states.shape
    buffer = states.new_empty(queries, group, heads, length + ROOM, size)
    buffer[..., :length, :] = states[:, None]
    return buffer.flatten(0, 1)


def preallocate(cache: Cache, group: int) -> None:
    """Repeat each row of a cache `group` times, in place, with room for the tokens to come.

    Layers that keep a window alone, or another state than keys and values, are repeated as they are.
    """
    for i, layer in enumerate(cache.layers):
        if is_filled(layer, windows=False):
            cache.layers[i] = PreallocatedLayer(layer, group)
        else:
            repeat_rows(layer, group)
