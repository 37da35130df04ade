"""A model's key-value cache: what its layers hold, whether rollouts can share it, and how its rows are picked.

Transformers has a class of cache layer for each kind of state. Which class holds what is asked here and nowhere else.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionCacheLayerMixin

from atmanrl.models.batching import positions
from atmanrl.models.layers import below_head


def read_prompts(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Any:
    """Return the cache of prompts, `[Q, S]`, that the model has read; None where it keeps none."""
    output = below_head(model)(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=True
    )
    return output.get("past_key_values")


def is_plain(layer: Any, windows: bool = True) -> bool:
    """Return whether a cache layer is of a kind that holds keys and values and nothing else.

    Args:
        layer: of a cache.
        windows: whether it may keep those of a sliding window alone.
    """
    return type(layer) is DynamicLayer or (windows and type(layer) is DynamicSlidingWindowLayer)


def is_filled(layer: Any, windows: bool = True) -> bool:
    """Return whether a plain cache layer (see `is_plain`) holds any keys and values yet."""
    return is_plain(layer, windows) and layer.get_seq_length() > 0


def can_share_cache(cache: Any, windows: bool = True) -> bool:
    """Return whether a prompt's cache can be given to several rollouts: only if all of its layers are plain.

    Convolution and linear-attention layers keep a running state, changed in place, that takes no account of padding on
    the left; models with such layers (Qwen3-Next, LFM2) read the prompt again in every pass.

    Args:
        cache: that a forward pass has returned; None is no cache.
        windows: whether layers may keep a sliding window alone. Not where prompts are padded on the right: the window
            would hold the padding, and not the tokens before it.
    """
    return isinstance(cache, Cache) and all(is_plain(layer, windows) for layer in getattr(cache, "layers", [None]))


def fork(cache: Any, rows: Tensor) -> Any:
    """Return a copy of the rows `[K]` of a cache, which a forward pass may change; the cache itself stays as it is.

    Keys and values are picked by `index_select`. transformers' own `batch_select_indices` picks them by advanced
    indexing, whose gradient is added up by several threads in whatever order they come: where rows repeat, as a prompt's
    do for its rollouts, two runs of one command would then differ in the last bit (torch 2.13 on a CPU).
    """
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in forked.layers:
        if is_filled(layer):
            layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)
        else:
            layer.batch_select_indices(rows)
    return forked


def select_rows(cache: Cache, rows: Tensor) -> None:
    """Keep the rows `rows` of every layer, in place, also of layers that keep another state than keys and values."""
    for layer in cache.layers:
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            layer.reorder_cache(rows)
        else:
            layer.batch_select_indices(rows)


def repeat_rows(layer: Any, times: int) -> None:
    """Repeat each row of one cache layer in place, whatever state it keeps."""
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        states = next(s for s in (*layer.conv_states.values(), *layer.recurrent_states.values()) if s is not None)
        layer.reorder_cache(torch.arange(len(states), device=states.device).repeat_interleave(times))
    else:
        layer.batch_repeat_interleave(times)
