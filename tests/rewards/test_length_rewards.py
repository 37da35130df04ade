"""A price on each token, and a group's lengths against each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_rewards import batch

from atmanrl.errors import UserError
from atmanrl.rewards import Gate, OutcomeReward, RelativeLengthReward, TokenPriceReward, score
from atmanrl.rollouts import Completion, Parts, Rollout, RolloutBatch
from atmanrl.tasks import Problem


@pytest.mark.parametrize("of", ["completion", "reasoning"])
def test_each_token_has_its_price(tiny_policy, of):
    priced = batch(tiny_policy, ["1 + 2 = 3 ##### 3 and more", "no delimiter at all"], [True, None])
    counts = {
        "completion": [len(r.completion.ids) for r in priced.rollouts],
        "reasoning": [r.parts.cot_length for r in priced.rollouts],
    }
    assert counts["reasoning"][0] < counts["completion"][0] and counts["reasoning"][1] == counts["completion"][1]
    values = TokenPriceReward(0.25, of=of)(priced, None)
    assert values.tolist() == [-0.25 * count for count in counts[of]]


def test_the_price_is_multiplied_by_the_weight_and_counts_behind_its_gate(tiny_policy):
    priced = batch(tiny_policy, ["1 + 2 = 3 ##### 3", "so ##### 4"], [True, False])
    rewards = {"outcome": OutcomeReward(), "price": TokenPriceReward(0.5, weight=2.0, only_where=Gate("outcome"))}
    expected = [-1.0 * len(priced.rollouts[0].completion.ids), -1.0]
    assert score(rewards, priced, None).total.tolist() == expected


@pytest.mark.parametrize("price", [0.0, -0.1, float("nan"), float("inf")])
def test_a_price_that_is_none(price):
    with pytest.raises(UserError, match="TokenPriceReward: price is .*; give a number above 0"):
        TokenPriceReward(price)


@pytest.mark.parametrize("kind", [TokenPriceReward, RelativeLengthReward])
def test_what_cannot_be_counted(kind):
    with pytest.raises(UserError, match=f"{kind.__name__}: of is 'words'; choose completion or reasoning"):
        kind(of="words")


def of_lengths(lengths: list[int], correct: list[bool | None], group_size: int) -> RolloutBatch:
    rollouts = []
    for i, (length, right) in enumerate(zip(lengths, correct, strict=True)):
        completion, parts = Completion([7] * (length + 2), [], True), Parts("", "", "1", length)
        rollouts.append(Rollout(Problem("p", "?", "1"), i, 0, "?", [5], completion, parts, right))
    return RolloutBatch(rollouts, group_size)


ROLLOUTS = st.tuples(st.integers(0, 20), st.sampled_from([True, False, None]))


@given(
    st.integers(1, 4).flatmap(lambda g: st.lists(st.lists(ROLLOUTS, min_size=g, max_size=g), min_size=1, max_size=3))
)
def test_lengths_within_a_group_as_kimi_has_them(groups):
    expected = []
    for group in groups:
        shortest, longest = min(n for n, _ in group), max(n for n, _ in group)
        for length, correct in group:
            relative = 0.0 if shortest == longest else 0.5 - (length - shortest) / (longest - shortest)
            expected.append(relative if correct else min(0.0, relative))
    lengths, correct = zip(*sum(groups, []), strict=True)
    for of in ("completion", "reasoning"):
        values = RelativeLengthReward(of=of)(of_lengths(list(lengths), list(correct), len(groups[0])), None)
        assert values.tolist() == pytest.approx(expected)


def test_a_group_of_all_lengths():
    values = RelativeLengthReward()(
        of_lengths([10, 20, 40, 50, 20, 20], [True, True, False, True, True, False], 3), None
    )
    assert values.tolist() == pytest.approx([0.5, 0.5 - 1 / 3, -0.5, -0.5, 0.5, 0.0])
    assert torch.equal(RelativeLengthReward()(of_lengths([5, 5], [True, False], 2), None), torch.zeros(2))
