import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.metrics.estimators import pass_at_k
from atmanrl.metrics.pass_at_k import PassAtK


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


RIGHT = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)


def test_metric_averages_over_problems():
    metric = PassAtK(ks=(1, 2, 4))
    metric.update(RIGHT)
    found = metric.compute()
    # Of six pairs, 3, 6, 0 and 5 hold a right answer.
    expected = {"pass_at_1": 7 / 16, "pass_at_2": (3 + 6 + 0 + 5) / 24, "pass_at_4": 3 / 4}
    assert {key: value.item() for key, value in found.items()} == pytest.approx(expected)


def test_metric_weighs_problems_equally_whatever_their_samples():
    metric = PassAtK(ks=[1])
    metric.update(torch.tensor([[True]]))
    metric.update(torch.zeros(1, 99, dtype=torch.bool))
    assert metric.compute()["pass_at_1"] == 0.5


def test_two_metrics_merged_equal_one():
    whole, left, right = PassAtK(), PassAtK(), PassAtK()
    whole.update(RIGHT)
    left.update(RIGHT[:1])
    right.update(RIGHT[1:])
    left.merge_state(right)
    torch.testing.assert_close(left.compute(), whole.compute())
    assert left.problems == 4


@pytest.mark.parametrize(
    "right", [torch.zeros(4, dtype=torch.bool), torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.bool)]
)
def test_metric_refuses_other_shapes_and_types(right):
    with pytest.raises(ValueError):
        PassAtK(ks=(1, 4)).update(right)


@pytest.mark.parametrize("ks", [(), (0, 1), (4, 4)])
def test_metric_refuses_bad_ks(ks):
    with pytest.raises(ValueError, match="distinct"):
        PassAtK(ks=ks)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_without_problems_is_nan():
    assert torch.isnan(PassAtK().compute()["pass_at_4"])
