"""Sampling: the same tokens as a naive loop, whatever the company, with every token's own random number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from atmanrl.errors import UserError
from atmanrl.rollouts import Completion, sample
from atmanrl.rollouts.preallocated import ROOM
from atmanrl.rollouts.seeds import BLOCK, cumulated, inverse_cdf, uniforms
from atmanrl.rollouts.truncation import Truncation

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
    st.lists(st.one_of(st.just(0.0), st.floats(2**-20, 1, width=32)), min_size=1, max_size=12).filter(any),
    st.one_of(st.sampled_from([0.0, 0.5, 1 - 2**-53]), st.floats(0, 1, exclude_max=True)),
)
def test_the_inverse_cdf_against_numpy(weights, number):
    probabilities = torch.tensor(weights, dtype=torch.float64)
    token = int(inverse_cdf(probabilities[None], torch.tensor([number], dtype=torch.float64))[0])
    cdf = np.cumsum(weights)
    assert token == np.searchsorted(cdf, number * cdf[-1], side="right")
    assert weights[token] > 0


def test_the_inverse_cdf_over_a_large_vocabulary():
    """Against sums in float64, by numpy: the same tokens, and nothing that a float32 softmax can hold is lost."""
    generator = torch.Generator().manual_seed(0)
    shares = (torch.randn(64, 128_000, generator=generator) * 3).softmax(-1)
    numbers = torch.rand(64, generator=generator, dtype=torch.float64)
    cdf = np.cumsum(shares.double().numpy(), axis=-1)
    expected = [np.searchsorted(row, u * row[-1], side="right") for row, u in zip(cdf, numbers.numpy(), strict=True)]
    assert inverse_cdf(shares, numbers).tolist() == expected
    torch.testing.assert_close(cumulated(shares), torch.from_numpy(cdf), rtol=0, atol=1e-12)


@pytest.mark.parametrize("vocabulary", [BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK - 3])
def test_drawing_by_blocks_is_drawing_from_the_cumulated_sums(vocabulary):
    """To the last bit, steps of the sums and tokens without a probability at the edges of blocks among them."""
    generator = torch.Generator().manual_seed(vocabulary)
    shares = (torch.randn(300, vocabulary, generator=generator) * 6).softmax(-1)
    shares[::3, BLOCK - 1 :: BLOCK], shares[1::3, ::BLOCK], shares[2::3, : vocabulary // 2] = 0, 0, 0
    cdf = cumulated(shares)
    numbers = torch.rand(300, generator=generator, dtype=torch.float64)
    steps = cdf.gather(1, torch.randint(vocabulary, (300, 1), generator=generator))[:, 0] / cdf[:, -1]
    numbers[::2] = steps[::2].clamp(max=1 - 2**-53)
    expected = (cdf > (numbers * cdf[:, -1]).clamp(max=cdf[:, -1].nextafter(torch.zeros(300).double()))[:, None]).int()
    assert torch.equal(inverse_cdf(shares, numbers), expected.argmax(-1))


def test_a_number_next_to_one_draws_a_token_that_has_a_probability():
    weights = torch.tensor([[0.7, 0.3 + 2**-22, 0.0], [1.0, 2.0**-23, 0.0], [0.1, 0.1, 0.0]])
    assert inverse_cdf(weights, torch.full((3,), 1 - 2**-53, dtype=torch.float64)).tolist() == [1, 1, 1]


LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True)


@given(LOGITS, st.integers(0, 14), st.floats(0.01, 1), st.none() | st.floats(0, 1))
def test_truncation_is_that_of_hugging_face(row, top_k, top_p, min_p):
    logits = torch.tensor([row, row[::-1]], dtype=torch.float64)
    warpers = [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [] if min_p is None else [MinPLogitsWarper(min_p)]
    expected = LogitsProcessorList(warpers)(None, logits.clone())
    found = Truncation(top_k, top_p, min_p)(logits)
    assert torch.equal(found, expected)
    assert found.isfinite().any(-1).all()


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [(Truncation(top_k=2), 2), (Truncation(top_p=0.7), 3), (Truncation(min_p=0.5), 2), (Truncation(), 5)],
)
def test_each_truncation_alone(truncation, kept):
    logits = torch.tensor([[0.1, 0.4, 0.22, 0.2, 0.08]]).log()
    assert truncation(logits).isfinite().sum() == kept


@pytest.mark.parametrize(
    ("options", "said"),
    [({"top_k": -1}, r"data\.top_k is -1"), ({"top_p": 0.0}, r"data\.top_p is 0\.0"), ({"top_p": 1.1}, r"data\.top_p"),
     ({"min_p": -0.1}, r"data\.min_p is -0\.1"), ({"min_p": 2.0}, r"data\.min_p")],
)  # fmt: skip
def test_wrong_truncations_are_named(options, said):
    with pytest.raises(UserError, match=said):
        Truncation(**options)


def test_truncated_sampling_draws_the_kept_tokens_with_their_whole_log_probabilities(policy):
    draws, prompt = 200, PROMPTS[2]
    uniform = uniforms(0, "train", 0, 0, 0, draws).view(1, draws, 1)
    (found,) = sample(policy, [prompt], uniform, 0.7, Truncation(top_k=3))
    logprobs = (policy.model(input_ids=torch.tensor([prompt])).logits[0, -1] / 0.7).log_softmax(-1).detach()
    best = logprobs.topk(3).indices.tolist()
    assert {c.ids[0] for c in found} == set(best)
    assert all(c.logprobs[0] == pytest.approx(float(logprobs[c.ids[0]]), abs=2e-6) for c in found)
    chances = logprobs[best].softmax(-1).cumsum(0)
    expected = [best[int((number >= chances).sum())] for number in uniform.flatten()]
    assert [c.ids[0] for c in found] == expected


def test_a_stop_string_ends_a_completion_wherever_its_tokens_begin_and_end(policy):
    uniform, decode = numbers(3, 8, 24), policy.tokenizer.decode
    policy.eos_ids = (-1,)
    free = sum(sample(policy, PROMPTS, uniform), [])
    texts = [decode(c.ids, skip_special_tokens=True) for c in free]
    # across a token's border, within a token, and of several bytes: taken from what is said without stop strings
    middle = [len(decode(c.ids[:9], skip_special_tokens=True)) for c in free]
    stops = [t[m - 2 : m + 2] for t, m in zip(texts[:3], middle, strict=False)] + [texts[4][-1], texts[5][3:4]]
    found = sum(sample(policy, PROMPTS, uniform, stop=stops), [])
    ends = []
    for whole, cut in zip(free, found, strict=True):
        said = [any(s in decode(whole.ids[: n + 1], skip_special_tokens=True) for s in stops) for n in range(24)]
        ends.append(said.index(True) + 1 if any(said) else 24)
        assert cut.ids == whole.ids[: ends[-1]] and cut.finished == any(said)
        assert cut.logprobs == pytest.approx(whole.logprobs[: ends[-1]], abs=2e-6)
    assert len(set(ends)) > 3 and not all(c.finished for c in sum(sample(policy, PROMPTS, uniform, stop=["@@"]), []))


def test_a_long_completion_grows_the_cache_and_stays_the_naive_one(policy):
    uniform, long = numbers(1, 3, ROOM + 6), [PROMPTS[0]]
    policy.eos_ids = tuple(range(2, 768, 90))
    same(sample(policy, long, uniform), [[naive(policy, PROMPTS[0], u, 1.0) for u in uniform[0]]])
    assert max(len(c.ids) for c in sample(policy, long, uniform)[0]) > ROOM


def test_nan_logits_are_told(policy):
    policy.model.get_output_embeddings().weight.data[5] = math.nan
    with pytest.raises(UserError, match=r"NaN logits \(prompt 1 of the batch, token 1 of sample 1\)"):
        sample(policy, PROMPTS, numbers(3, 2))


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
