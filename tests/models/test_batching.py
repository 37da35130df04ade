"""Sequences of different lengths: positions without padding, and the batches that cost least."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.models.batching import cheapest_batches, pass_tokens, positions


def test_positions_count_each_rows_own_tokens():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert positions(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def work(batches, lengths, pass_tokens):
    return sum(len(b) * max(lengths[i] for i in b) + pass_tokens for b in batches)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 200), st.integers(0, 80))
def test_cheapest_batches_are_the_cheapest(lengths, budget, pass_tokens):
    """Against every way to cut the sorted sequences."""
    found = cheapest_batches(lengths, budget, pass_tokens)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    order, least = sorted(range(len(lengths)), key=lengths.__getitem__), float("inf")
    for cuts in range(1 << (len(order) - 1)):
        parts: list[list[int]] = [[order[0]]]
        for k, i in enumerate(order[1:]):
            if cuts >> k & 1:
                parts.append([i])
            else:
                parts[-1].append(i)
        if all(len(b) == 1 or len(b) * lengths[b[-1]] <= budget for b in parts):
            least = min(least, work(parts, lengths, pass_tokens))
    assert all(len(b) == 1 or len(b) * lengths[b[-1]] <= budget for b in found)
    assert work(found, lengths, pass_tokens) == least


def test_a_costly_pass_is_made_once_and_a_free_one_never_pads():
    lengths = [3, 90, 3, 4, 90]
    assert cheapest_batches(lengths, 1000, 10_000) == [[0, 2, 3, 1, 4]]
    assert cheapest_batches(lengths, 1000, 0) in (
        [[0, 2], [3], [1, 4]],
        [[0], [2], [3], [1], [4]],
        [[0, 2], [3], [1], [4]],
    )
    assert cheapest_batches([], 10, 1) == []


@pytest.mark.parametrize(
    ("device", "weights", "tokens"),
    [
        ("meta", 60_820_000, 8221),  # 7.5 ms a layer at 4e14 FLOP/s: Llama-3.2-1B beside a GPU
        ("cpu", 196_608, 509),
        ("cpu", 3_540_000, 28),  # SmolLM2-135M
    ],
)
def test_a_pass_weighs_as_many_tokens_as_could_be_learned_from_in_its_time(device, weights, tokens):
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.empty(weights, device=device))
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([layer])
    assert pass_tokens(model) == pytest.approx(tokens, rel=0.01)


def test_a_model_without_layers_has_passes_that_cost_nothing_by_themselves():
    assert pass_tokens(torch.nn.Linear(2, 2)) == 0
