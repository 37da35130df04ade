import itertools
from collections import Counter
from contextlib import nullcontext
from fractions import Fraction

import pytest
import torch
from batches import answered
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.metrics.majority import NO_VOTE, RIGHT, MajorityAtK, answer_classes, majority_at_k
from atmanrl.metrics.pass_at_k import pass_at_k
from atmanrl.tasks import MMLU, Problem, Task, WordProblems


def vote(samples):
    """One vote, literally: the share of the right answer among the most frequent ones."""
    counts = Counter(sample for sample in samples if sample != NO_VOTE)
    most = max(counts.values(), default=0)
    winners = [answer for answer, count in counts.items() if count == most]
    return Fraction(RIGHT in winners, len(winners) or 1)


def brute_force(samples, k):
    votes = [vote(subset) for subset in itertools.combinations(samples, k)]
    return float(sum(votes) / len(votes))


def estimate(samples, k):
    counts = Counter(samples)
    right, silent = counts.pop(RIGHT, 0), counts.pop(NO_VOTE, 0)
    return majority_at_k(right, tuple(sorted(counts.values())), silent, k)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=9), st.data())
def test_equals_the_mean_vote_of_all_subsets(samples, data):
    k = data.draw(st.integers(1, len(samples)))
    assert estimate(samples, k) == pytest.approx(brute_force(samples, k), abs=1e-12)
    right = samples.count(RIGHT)
    assert estimate(samples, k) <= pass_at_k(len(samples), right, k) + 1e-12
    assert estimate(samples, 1) == pytest.approx(right / len(samples))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0, 0, 1, 2], 1),
        ([0, 0, 1, 1], 1 / 2),
        ([0, 1, 1, 2], 0),
        ([0, 1, 2, 3], 1 / 4),
        ([0, -1, -1, -1], 1),  # who says nothing does not vote
        ([0, 1, -1, -1], 1 / 2),
        ([-1, -1, -1, -1], 0),
        ([1, 1, -1, -1], 0),
    ],
)
def test_a_vote_of_four(samples, expected):
    assert estimate(samples, 4) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "others", "silent", "k"), [(1, (1,), 0, 3), (1, (1,), 0, 0), (-1, (4,), 0, 1)])
def test_refuses_impossible_counts(right, others, silent, k):
    with pytest.raises(ValueError):
        majority_at_k(right, others, silent, k)


def test_the_most_samples_that_anyone_takes_are_quick():
    assert 0 < majority_at_k(20, (18,) + (1,) * 26, 0, 32) < 1


def test_answers_are_compared_as_the_task_does():
    task = WordProblems(train_size=1, test_size=1)
    texts = ["72", "$72.00", "1,000", "1000 apples", None, "many", "", "7.5", "15/2", "1000.0 ##### 3"]
    assert answer_classes(task, Problem("x", "?", "72"), texts) == [0, 0, 1, 1, -1, -1, -1, 2, 2, 1]
    letters = ["(b)", "B. Paris", "C", "the answer is c", "B or C", "D", "Paris"]
    assert answer_classes(MMLU("nowhere"), Problem("x", "?", "B"), letters) == [0, 0, 1, 1, -1, 2, -1]


class LooksUp(Task):
    """A task that does not look at `problem.gold`."""

    def problems(self, split):
        return []

    def is_right(self, answer, problem):
        return answer.strip() == {"x": "yes"}[problem.id]


class Picky(LooksUp):
    """A task that cannot take any text as gold."""

    def is_right(self, answer, problem):
        return answer.strip() == {"yes": "yes"}[problem.gold]


@pytest.mark.parametrize("task", [LooksUp(), Picky()])
def test_a_task_with_other_ideas_of_gold_has_texts_compared(task):
    answers = ["yes", " no", "no ", "maybe", None, "yes "]
    warns = (
        pytest.warns(UserWarning, match=r"Picky.is_right raised KeyError .*problem x")
        if type(task) is Picky
        else nullcontext()
    )
    with warns:
        assert answer_classes(task, Problem("x", "?", "yes"), answers) == [0, 1, 1, 2, -1, 0]


ANSWERS = [["72", "$72.00", "5", "6"], ["72", "5", "5.0", "6"], ["72", "72", "7", "7 apples"], [None, "", "72", "many"]]


def prepared(ks=None, samples=4):
    metric = MajorityAtK(ks)
    metric.prepare(WordProblems(train_size=1, test_size=1), samples)
    return metric


def test_metric_averages_over_problems():
    metric = prepared((1, 4))
    metric.update(answered(*ANSWERS))
    values = metric.compute()
    assert values["majority_at_4"] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert values["majority_at_1"] == pytest.approx((2 + 1 + 2 + 1) / 16)


def test_two_metrics_merged_equal_one():
    whole, left, right = prepared(), prepared(), prepared()
    whole.update(answered(*ANSWERS))
    left.update(answered(*ANSWERS[:1]))
    right.update(answered(*ANSWERS[1:]))
    left.merge_state(right)
    torch.testing.assert_close(left.compute(), whole.compute())
    assert left.counts[0, 1] + left.sums[0, 1] == 4


def test_metric_refuses_too_few_samples_and_bad_ks_and_wants_a_task():
    with pytest.raises(ValueError, match="at least 4 samples"):
        prepared().update(answered(["72", "5", "6"]))
    with pytest.raises(ValueError, match="distinct"):
        MajorityAtK(ks=(4, 4))
    with pytest.raises(ValueError, match="needs a task"):
        MajorityAtK().update(answered(["72"]))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_without_problems_is_nan():
    assert torch.isnan(prepared().compute()["majority_at_4"])
