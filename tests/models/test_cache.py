"""A prompt's cache is forked for its rollouts: their own rows, the original untouched, gradients that repeat."""

import pytest
import torch
from transformers import Lfm2Config, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache, StaticCache

from atmanrl.models.cache import can_share_cache, fork


@pytest.fixture
def threads():
    """Two threads, which is where gradients of repeated rows may be added up in either order."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cache_of(keys, values):
    cache = DynamicCache()
    cache.update(keys, values, 0)
    return cache


def test_a_fork_holds_the_rows_that_were_asked_for_and_leaves_the_original_alone():
    keys, values = torch.randn(2, 3, 1, 5, 4).unbind(0)
    cache = cache_of(keys, values)
    forked = fork(cache, torch.tensor([2, 0, 2]))
    assert torch.equal(forked.layers[0].keys, keys[[2, 0, 2]])
    assert torch.equal(forked.layers[0].values, values[[2, 0, 2]])
    forked.update(torch.zeros(3, 1, 1, 4), torch.zeros(3, 1, 1, 4), 0)
    assert forked.get_seq_length() == 6
    assert cache.get_seq_length() == 5 and torch.equal(cache.layers[0].keys, keys)


def test_a_layer_that_holds_nothing_yet_can_be_forked():
    cache = cache_of(*torch.randn(2, 3, 1, 5, 4).unbind(0))
    cache.layers.append(DynamicLayer())
    assert fork(cache, torch.tensor([1])).layers[1].get_seq_length() == 0


def test_the_gradient_of_rows_that_repeat_is_the_same_to_the_bit_each_time(threads):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(8, 2, 60, 16, generator=generator)
    rows = torch.arange(8).repeat(8)[torch.randperm(64, generator=generator)]
    upstream = torch.randn(64, 2, 60, 16, generator=generator)

    def gradient():
        leaf = keys.clone().requires_grad_()
        fork(cache_of(leaf, leaf), rows).layers[0].keys.backward(upstream)
        return leaf.grad

    first = gradient()
    expected = torch.zeros_like(keys).double().index_add_(0, rows, upstream.double())
    assert torch.allclose(first.double(), expected, atol=1e-5)
    assert all(torch.equal(gradient(), first) for _ in range(30))


def test_only_caches_of_keys_and_values_are_shared():
    llama = LlamaConfig(num_hidden_layers=2)
    assert can_share_cache(DynamicCache(config=llama)) and can_share_cache(DynamicCache(config=llama), windows=False)
    running_state = Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"])
    assert not can_share_cache(DynamicCache(config=running_state))
    assert not can_share_cache(StaticCache(llama, max_cache_len=16))
    assert not can_share_cache(EncoderDecoderCache(DynamicCache(), DynamicCache()))
    assert not can_share_cache(None)


def test_a_cache_of_windows_is_shared_only_where_its_user_can_have_it():
    windows = DynamicCache(config=MistralConfig(num_hidden_layers=2, sliding_window=4))
    assert can_share_cache(windows)
    assert not can_share_cache(windows, windows=False)
