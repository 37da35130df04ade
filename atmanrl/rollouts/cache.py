"""Key-value caches that are written in place: Hugging Face's own is copied whole, layer by layer, for every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

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


def repeat_with_room(cache: Cache, group: int) -> None:
    """Repeat each row of a cache `group` times, with room for what follows.

    Layers that keep a window alone, or another state than keys and values, are repeated as they are.
    """
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and layer.get_seq_length() > 0:
            cache.layers[i] = PreallocatedLayer(layer, group)
        elif isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.reorder_cache(_rows_of(layer).repeat_interleave(group))
        else:
            layer.batch_repeat_interleave(group)


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Keep the rows `rows` of every layer, also of those that keep another state than keys and values."""
    for layer in cache.layers:
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.reorder_cache(rows)
        else:
            layer.batch_select_indices(rows)


def _rows_of(layer: LinearAttentionCacheLayerMixin) -> Tensor:
    """The row numbers of a layer's states."""
    states = next(s for s in (*layer.conv_states.values(), *layer.recurrent_states.values()) if s is not None)
    return torch.arange(len(states), device=states.device)


class StaticKeyValueLayer(CacheLayerMixin):
    """A cache layer of fixed shape at a fixed address, so that a decoding step can be captured or compiled.

    All layers share one column counter on the device, which the decoding step moves on; transformers' `StaticLayer`
    counts in every layer, three kernels more in each. Layers with a sliding window keep all columns here, too: their
    mask leaves out what lies before the window.

    Args:
        keys: `[B, heads, S, D]`, 0 in the columns to come: a column that is masked must not hold NaN.
        values: `[B, heads, S, E]`, likewise.
        column: `[1]`, the column of the next key.
    """

    is_compileable = True
    is_sliding = False

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.column = keys, values, column
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffers are there from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one column, `[B, heads, 1, D]`; returns the buffers with all columns."""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns of the mask, and the first of them."""
        return self.keys.shape[2], 0

    def get_seq_length(self) -> Tensor:
        """The column of the next key, on the device: to read it would make the host wait."""
        return self.column

    def get_max_length(self) -> int:
        """All columns."""
        return self.keys.shape[2]


STATIC_SOURCES = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that hold keys and values and nothing else."""


def static_cache(cache: Cache, rows: Tensor, columns: int, used: int, column: Tensor) -> Cache:
    """A cache of `StaticKeyValueLayer` with chosen rows of another one, whose layers are freed one by one.

    Args:
        cache: of dynamic layers after the prompts, or static.
        rows: `[B]` row numbers of it; one may stand several times.
        columns: of the new buffers.
        used: columns that are in use; a layer that keeps fewer has dropped the first ones.
        column: `[1]`, the counter of the new layers.
    """
    layers = []
    for i, layer in enumerate(cache.layers):
        keys, values = (_placed(states, rows, columns, used) for states in (layer.keys, layer.values))
        layers.append(StaticKeyValueLayer(keys, values, column))
        cache.layers[i] = None
    return Cache(layers=layers)


def _placed(states: Tensor, rows: Tensor, columns: int, used: int) -> Tensor:
    """The chosen rows of `states [Q, heads, S, D]` in a new buffer `[B, heads, columns, D]`, right-aligned at `used`."""
    buffer = states.new_zeros(len(rows), states.shape[1], columns, states.shape[3])
    states = states[:, :, :used]
    buffer[:, :, used - states.shape[2] : used] = states.index_select(0, rows)
    return buffer
