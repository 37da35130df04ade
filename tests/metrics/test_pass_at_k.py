import itertools
import math
from fractions import Fraction

import pytest
import torch
from batches import judged, rollout
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.errors import UserError
from atmanrl.metrics.pass_at_k import PassAtK, pass_at_k
from atmanrl.rollouts import RolloutBatch
from atmanrl.tasks import MixtureTask, MultiHop, WordProblems


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in range(1, 9) for c in range(n + 1)])
def test_equals_the_share_of_subsets_with_a_right_answer(n, c):
    samples = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(samples, k))
        share = Fraction(sum(any(subset) for subset in subsets), len(subsets))
        assert pass_at_k(n, c, k) == pytest.approx(float(share), abs=1e-12)


@given(st.integers(1, 200), st.data())
def test_is_a_probability_that_grows_with_k(n, data):
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    estimate = pass_at_k(n, c, k)
    assert 0 <= estimate <= 1
    assert pass_at_k(n, c, 1) == pytest.approx(c / n)
    assert estimate >= pass_at_k(n, c, 1) - 1e-12
    assert pass_at_k(n, c, n) == (1 if c else 0)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 2, 0), (0, 0, 1), (4, 5, 1), (4, -1, 1)])
def test_refuses_impossible_counts(n, c, k):
    with pytest.raises(ValueError):
        pass_at_k(n, c, k)


RIGHT = [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_metric_averages_over_problems():
    metric = PassAtK(ks=(1, 2, 4))
    metric.update(judged(*RIGHT))
    values = metric.compute()
    # Of six pairs, 3, 6, 0 and 5 hold a right answer.
    expected = {"pass_at_1": 7 / 16, "pass_at_2": (3 + 6 + 0 + 5) / 24, "pass_at_4": 3 / 4}
    assert {key: value.item() for key, value in values.items()} == pytest.approx(expected)
    assert [column.title for column in metric.columns.values()] == ["pass@1 %", "pass@2 %", "pass@4 %"]


def test_metric_weighs_problems_equally_whatever_their_samples():
    metric = PassAtK(ks=[1])
    metric.update(judged([1]))
    metric.update(judged([0] * 99))
    assert metric.compute()["pass_at_1"] == 0.5


def test_two_metrics_merged_equal_one():
    whole, left, right = (PassAtK((1, 4)) for _ in range(3))
    whole.update(judged(*RIGHT))
    left.update(judged(*RIGHT[:1]))
    right.update(judged(*RIGHT[1:]))
    left.merge_state(right)
    torch.testing.assert_close(left.compute(), whole.compute())
    assert left.counts[0, 1] + left.sums[0, 1] == 4


def test_metric_counts_one_and_all_samples_unless_told_otherwise():
    metric = PassAtK()
    metric.prepare(None, 4)
    assert list(metric.columns) == ["pass_at_1", "pass_at_4"]
    chosen = PassAtK(ks=(2,))
    chosen.prepare(None, 4)
    assert list(chosen.columns) == ["pass_at_2"]
    with pytest.raises(UserError, match="PassAtK.ks has 2, but there are 1 samples"):
        chosen.prepare(None, 1)
    with pytest.raises(ValueError, match="at least 2 samples"):
        chosen.update(judged([1]))


def test_each_task_of_a_mixture_has_a_mean_of_its_own():
    metric = PassAtK()
    metric.prepare(MixtureTask({"easy": WordProblems(), "hard": MultiHop(), "idle": WordProblems()}), 2)
    rights = {"easy/1": [1, 1], "hard/1": [0, 0], "hard/2": [1, 0]}
    rollouts = [rollout(name, correct=bool(right)) for name, group in rights.items() for right in group]
    metric.update(RolloutBatch(rollouts[:4], 2))
    metric.update(RolloutBatch(rollouts[4:], 2))
    values = {key: value.item() for key, value in metric.compute().items()}
    assert (values["easy/pass_at_1"], values["easy/pass_at_2"]) == (1, 1)
    assert (values["hard/pass_at_1"], values["hard/pass_at_2"]) == (0.25, 0.5)
    assert values["pass_at_1"] == 0.5 and math.isnan(values["idle/pass_at_1"])


@pytest.mark.parametrize("ks", [(), (0, 1), (4, 4)])
def test_metric_refuses_bad_ks(ks):
    with pytest.raises(UserError, match="distinct"):
        PassAtK(ks=ks)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_without_problems_is_nan():
    assert torch.isnan(PassAtK((1, 4)).compute()["pass_at_4"])
