"""Logits where they are needed are the logits of a whole forward pass, and the model is left as it was."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.models.logits import (
    cheapest_batches,
    head_at,
    last_layer_at,
    logits_at,
    positions,
    token_logprobs,
    token_scores,
)


@pytest.fixture
def inputs(tiny_policy):
    torch.manual_seed(0)
    ids = torch.randint(4, 700, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    where = (torch.rand(3, 9) < 0.4) & mask.bool()
    where[0, 0] = True
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask), "use_cache": False}, where


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_selected_logits_and_their_gradients_are_those_of_the_whole_pass(tiny_policy, inputs):
    arguments, where = inputs
    model = tiny_policy.model
    weights = [p for p in model.parameters() if p.requires_grad]
    whole = model(**arguments).logits[where]
    some = logits_at(model, where, **arguments)
    torch.testing.assert_close(some, whole, rtol=0, atol=1e-12)
    target = torch.randn_like(whole)
    for a, b in zip(*(torch.autograd.grad((x * target).sum(), weights) for x in (whole, some)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert hooks(model) == 0


def test_hooks_are_removed_when_a_pass_fails(tiny_policy, inputs):
    _, where = inputs
    with (
        pytest.raises(RuntimeError, match="stop"),
        head_at(tiny_policy.model, where),
        last_layer_at(tiny_policy.model, where),
    ):
        assert hooks(tiny_policy.model) == 3
        raise RuntimeError("stop")
    assert hooks(tiny_policy.model) == 0


def test_the_last_layer_works_only_where_it_is_asked_to(tiny_policy, inputs):
    arguments, where = inputs
    seen = []
    part = tiny_policy.model.model.layers[-1].mlp.down_proj
    handle = part.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[1]))
    logits_at(tiny_policy.model, where, **arguments)
    handle.remove()
    assert seen == [int(where.sum())]


def test_token_logprobs_are_a_softmax_at_a_temperature():
    logits, tokens = torch.randn(5, 11), torch.tensor([0, 3, 10, 2, 2])
    expected = (logits / 0.7).log_softmax(-1)[torch.arange(5), tokens]
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), expected)
    assert token_logprobs(logits.bfloat16(), tokens).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_entropies_are_computed_in_float32_under_autocast(kind):
    """In bfloat16 the product of shares and logits is off by hundredths of a nat."""
    torch.manual_seed(0)
    logits, tokens = torch.randn(6, 5000) * 3, torch.arange(6)
    exact = logits.double().log_softmax(-1)
    with torch.autocast("cpu", dtype=kind):
        chosen, entropy = token_scores(logits, tokens)
        assert entropy.dtype == chosen.dtype == token_logprobs(logits, tokens).dtype == torch.float32
    assert (entropy + (exact.exp() * exact).sum(-1)).abs().max() < 1e-5
    assert (chosen - exact[tokens, tokens]).abs().max() < 1e-5


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
    assert cheapest_batches([], 10) == []
