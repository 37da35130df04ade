"""A key-value cache of fixed shape at a fixed address, as a decoding step needs it that is captured or compiled."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


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
        """Do nothing: the buffers exist from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one column, `[B, heads, 1, D]`; returns the buffers with all columns.

        Under autocast, where keys and values of float32 weights come in different dtypes, the buffers' dtype stands.
        """
        self.keys.index_copy_(2, self.column, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.column, value_states.to(self.values.dtype))
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns the mask has, and the first of them."""
        return self.keys.shape[2], 0

    def get_seq_length(self) -> Tensor:
        """Return the column of the next key, on the device: reading it would make the host wait."""
        return self.column

    def get_max_length(self) -> int:
        """Return the number of columns."""
        return self.keys.shape[2]


def static_cache(cache: Cache, rows: Tensor, columns: int, used: int, column: Tensor) -> Cache:
    """Return a cache of `StaticKeyValueLayer` with chosen rows of another one, whose layers are freed one by one.

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
