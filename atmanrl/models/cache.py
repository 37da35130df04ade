"""A prompt's key-value cache, given to several rollouts."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def fork(cache: Any, rows: Tensor) -> Any:
    """Return a cache of its own for the rows `[K]` of a batch: a forward pass changes the cache that it is given.

    Keys and values are picked by `index_select`. transformers' own `batch_select_indices` picks them by advanced
    indexing, whose gradient is added up by several threads in whatever order they come: where rows repeat, as a prompt's
    do for its rollouts, two runs of one command would then differ in the last bit (torch 2.13 on a CPU).
    """
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in forked.layers:
        if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) and layer.get_seq_length() > 0:
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
        else:
            layer.batch_select_indices(rows)
    return forked
