"""Sampling: the same tokens as a naive loop, whatever the company, with every token's own random number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.errors import UserError
from atmanrl.rollouts import Completion, sample
from atmanrl.rollouts.seeds import inverse_cdf, uniforms

PROMPTS = [[1, 20, 30, 40], [1, 25], [1, *range(50, 61)]]
LIMIT = 12


def numbers(queries: int, group: int, limit: int = LIMIT, first: int = 0) -> torch.Tensor:
    """A uniform number for each token of rows `first`, `first` + 1, ..."""
    rows = [[uniforms(3, "train", 1, first + q, s, limit) for s in range(group)] for q in range(queries)]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.fixture
def policy(tiny_policy):
    """One in twelve tokens ends a completion, so that rows finish at different times."""
    tiny_policy.eos_ids = tuple(range(2, 768, 12))
    return tiny_policy


def naive(policy, prompt: list[int], uniform: torch.Tensor, temperature: float) -> Completion:
    """One row, no cache, no padding, a full forward pass for every token."""
    ids, logprobs = [], []
    for number in uniform.tolist():
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([prompt + ids])).logits[0, -1] / temperature
        probabilities = logits.softmax(-1).numpy()
        token = int(np.searchsorted(np.cumsum(probabilities), number, side="right"))
        ids.append(token)
        logprobs.append(math.log(probabilities[token]))
        if token in policy.eos_ids:
            return Completion(ids, logprobs, True)
    return Completion(ids, logprobs, False)


def same(some: list[list[Completion]], others: list[list[Completion]]) -> None:
    for left, right in zip(sum(some, []), sum(others, []), strict=True):
        assert left.ids == right.ids and left.finished == right.finished
        assert left.logprobs == pytest.approx(right.logprobs, abs=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
def test_it_equals_a_naive_loop(policy, temperature):
    uniform = numbers(3, 4)
    found = sample(policy, PROMPTS, uniform, temperature)
    expected = [[naive(policy, p, u, temperature) for u in group] for p, group in zip(PROMPTS, uniform, strict=True)]
    same(found, expected)
    every = sum(found, [])
    assert {c.finished for c in every} == {True, False} and len({len(c.ids) for c in every}) > 3
    assert all(len(c.ids) == len(c.logprobs) <= LIMIT for c in every)
    assert all(c.finished or len(c.ids) == LIMIT for c in every)


def test_a_query_alone_is_answered_as_in_company(policy):
    uniform = numbers(3, 4)
    together = sample(policy, PROMPTS, uniform)
    same(together, [sample(policy, [p], uniform[q : q + 1])[0] for q, p in enumerate(PROMPTS)])
    same(together, sample(policy, PROMPTS[::-1], uniform.flip(0))[::-1])


def test_the_group_size_changes_nothing(policy):
    few, many = sample(policy, PROMPTS, numbers(3, 2)), sample(policy, PROMPTS, numbers(3, 6))
    same(few, [group[:2] for group in many])


def test_dropping_finished_rows_changes_nothing(policy):
    uniform = numbers(3, 4)
    dropped = sample(policy, PROMPTS, uniform)
    ends, policy.eos_ids = policy.eos_ids, (-1,)
    kept = sample(policy, PROMPTS, uniform)
    assert not any(c.finished for c in sum(kept, []))
    for short, long in zip(sum(dropped, []), sum(kept, []), strict=True):
        assert short.ids == long.ids[: len(short.ids)]
        assert short.logprobs == pytest.approx(long.logprobs[: len(short.ids)], abs=2e-6)
        assert not set(short.ids[:-1]) & set(ends)


def test_the_limit_cuts_off(policy):
    long, short = sample(policy, PROMPTS, numbers(3, 4)), sample(policy, PROMPTS, numbers(3, 4, limit=3))
    for whole, cut in zip(sum(long, []), sum(short, []), strict=True):
        assert cut.ids == whole.ids[:3]
        # an end of sequence at the very limit still finishes
        assert cut.finished == (cut.ids[-1] in policy.eos_ids)


def test_a_very_low_temperature_is_greedy(policy):
    for prompt, group in zip(PROMPTS, sample(policy, PROMPTS, numbers(3, 2), temperature=1e-5), strict=True):
        best = int(policy.model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax())
        assert [c.ids[0] for c in group] == [best] * 2
        assert group[0].logprobs[0] == pytest.approx(0, abs=1e-6)


def test_every_module_keeps_its_mode(policy):
    policy.model.train()
    policy.model.model.layers[0].eval()  # what a user has frozen stays frozen
    modes = [module.training for module in policy.model.modules()]
    seen = []
    hook = policy.model.model.layers[1].register_forward_hook(lambda module, *_: seen.append(module.training))
    sample(policy, PROMPTS, numbers(3, 2))
    hook.remove()
    assert [module.training for module in policy.model.modules()] == modes
    assert seen and not any(seen)
    with pytest.raises(IndexError):
        sample(policy, [[10_000]], numbers(1, 1))  # a failure in the middle
    assert [module.training for module in policy.model.modules()] == modes
    assert not any(p.grad is not None for p in policy.parameters())


def test_the_context_is_checked(policy):
    policy.model.config.max_position_embeddings = 16
    sample(policy, PROMPTS, numbers(3, 1, limit=4))
    with pytest.raises(UserError, match=r"12 tokens and max_new_tokens=5 .* 16 tokens; lower data.max_new_tokens"):
        sample(policy, PROMPTS, numbers(3, 1, limit=5))


def test_first_tokens_follow_the_softmax(policy):
    draws, prompt = 4000, PROMPTS[2]
    uniform = uniforms(0, "train", 0, 0, 0, draws).view(1, draws, 1)
    tokens = torch.tensor([c.ids[0] for c in sample(policy, [prompt], uniform, temperature=0.4)[0]])
    logits = policy.model(input_ids=torch.tensor([prompt])).logits[0, -1].detach()
    bins = torch.empty(768, dtype=torch.long)
    bins[logits.argsort(descending=True)] = torch.arange(768) // 24  # 32 bins, from likely to unlikely tokens
    seen = torch.bincount(bins[tokens], minlength=32)

    def chi_square(temperature: float) -> float:
        expected = torch.zeros(32, dtype=torch.float64).index_add(0, bins, (logits / temperature).softmax(-1)) * draws
        return float(((seen - expected) ** 2 / expected).sum())

    limit = 66  # with 31 degrees of freedom, one in 4000 fair draws lies above
    assert chi_square(0.4) < limit
    assert chi_square(0.34) > limit and chi_square(0.48) > limit  # so fine is the comparison


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1)), min_size=1, max_size=12).filter(any),
    st.one_of(st.sampled_from([0.0, 0.5, 1 - 2**-53]), st.floats(0, 1, exclude_max=True)),
)
def test_the_inverse_cdf_against_numpy(weights, number):
    probabilities = torch.tensor(weights, dtype=torch.float64)
    token = int(inverse_cdf(probabilities[None], torch.tensor([number], dtype=torch.float64))[0])
    cdf = np.cumsum(weights)
    assert token == np.searchsorted(cdf, number * cdf[-1], side="right")
    assert weights[token] > 0


def test_the_inverse_cdf_at_its_steps():
    row = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    at = torch.tensor([0.0, 0.25 - 1e-9, 0.25, 0.75 - 1e-9, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(row.expand(6, -1), at).tolist() == [1, 1, 3, 3, 4, 4]


def test_uniforms_depend_on_each_argument_and_on_nothing_else():
    base = (0, "train", 1, 2, 3)
    assert torch.equal(uniforms(*base, 50)[:7], uniforms(*base, 7))
    torch.manual_seed(5)
    assert torch.equal(uniforms(*base, 50), uniforms(*base, 50))
    others = [(1, *base[1:]), (0, "val", 1, 2, 3), (0, "train", 2, 2, 3), (0, "train", 1, 3, 3), (0, "train", 1, 2, 4)]
    others += [(0, "train", 12, 3, 3), (0, "train", 1, 23, 3)]  # digits that merely move on
    drawn = torch.stack([uniforms(*key, 1000) for key in [base, *others]])
    assert drawn.dtype == torch.float64 and drawn.min() >= 0 and drawn.max() < 1
    assert len(drawn.unique()) == drawn.numel()
    assert torch.allclose(drawn.mean(1), torch.tensor(0.5, dtype=torch.float64), atol=0.04)
    assert (torch.corrcoef(drawn) - torch.eye(len(drawn))).abs().max() < 0.12
