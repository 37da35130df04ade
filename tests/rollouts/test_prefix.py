"""The first words of a reasoning, as tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.rollouts import Completion, Rollout, split
from atmanrl.rollouts.prefix import cot_prefix, cot_prefixes
from atmanrl.tasks import Problem


def rollout(policy, text: str) -> Rollout:
    ids = policy.tokenizer(text).input_ids
    return Rollout(Problem("p", "?", "3"), 0, 0, "?", [5], Completion(ids, [], True), split(policy.tokenizer, ids))


TEXT = "He has 3 apples and 14 pears.\nSo 3 + 14 = 17 in all. ##### 17"
"""15 words of reasoning."""


@pytest.mark.parametrize(("percent", "words"), [(0, 0), (6, 0), (7, 1), (20, 3), (40, 6), (60, 9), (80, 12), (99, 14)])
def test_words_are_kept_as_in_plain_python(tiny_policy, percent, words):
    given_rollout = rollout(tiny_policy, TEXT)
    kept = tiny_policy.tokenizer.decode(cot_prefix(given_rollout, tiny_policy.tokenizer, percent))
    assert kept.split() == given_rollout.parts.cot.split()[:words]


def test_all_of_it_is_the_reasoning_as_it_was_written(tiny_policy):
    whole = rollout(tiny_policy, TEXT)
    assert cot_prefix(whole, tiny_policy.tokenizer, 100) == whole.cot_ids


@given(st.text("ab 1é€\n", max_size=30))
def test_longer_shares_are_longer_prefixes(tokenizer_policy, text):
    whole = rollout(tokenizer_policy, text + " ##### 3")
    prefixes = cot_prefixes(whole, tokenizer_policy.tokenizer, range(0, 101, 10))
    assert prefixes[0] == [] and prefixes[-1] == whole.cot_ids
    for shorter, longer in zip(prefixes, prefixes[1:], strict=False):
        assert longer[: len(shorter)] == shorter


@pytest.fixture(scope="module")
def tokenizer_policy(tiny_folder):
    from atmanrl.models.policy import Policy

    return Policy(str(tiny_folder)).prepare()
