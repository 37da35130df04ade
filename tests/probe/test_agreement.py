"""Agreement of two probes: against numpy, and its confidence against simulated rollouts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.probe.agreement import Agreement

GROUP = 4
REWARDS = st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)), min_size=GROUP, max_size=GROUP)


@given(st.lists(REWARDS, min_size=1, max_size=5))
def test_correlation_and_slope_are_those_of_numpy_over_advantages(groups):
    pairs = np.array(groups, dtype=np.float64)
    x, y = (pairs - pairs.mean(1, keepdims=True)).reshape(-1, 2).T
    if min(x.std(), y.std()) < 1e-6:
        return
    flat = pairs.reshape(-1, 2)
    agreement = Agreement.of(flat[:, 0].tolist(), flat[:, 1].tolist(), np.repeat(range(len(groups)), GROUP).tolist())
    assert agreement.pearson == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)
    assert agreement.slope == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)
    assert agreement.largest == np.abs(flat[:, 0] - flat[:, 1]).max()


def test_checks_add_up_to_one_check_of_all():
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=16).tolist(), rng.normal(size=16).tolist(), [i // 4 for i in range(16)]
    halves = Agreement.of(x[:8], y[:8], groups[:8]) + Agreement.of(x[8:], y[8:], groups[8:])
    whole = Agreement.of(x, y, groups)
    assert (halves.rollouts, halves.groups, halves.largest) == (whole.rollouts, whole.groups, whole.largest)
    assert halves.pearson == pytest.approx(whole.pearson) and halves.slope == pytest.approx(whole.slope)


def test_rollouts_that_say_nothing_do_not_count():
    alone = Agreement.of([0.1, 0.2, math.nan, 0.3], [0.1, 0.2, 0.2, math.nan], ["a", "b", "b", "b"])
    assert alone == Agreement() and math.isnan(alone.pearson) and math.isnan(alone.lower_bound())
    alike = Agreement.of([0.1, 0.2, 0.2, 0.2], [0.1, 0.3, 0.3, 0.3], ["a"] * 4)
    assert alike.rollouts == 2 and alike.pearson == pytest.approx(1) and math.isnan(alike.lower_bound())
    flat = Agreement.of([0.1, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], ["a"] * 4)
    assert math.isnan(flat.pearson) and math.isnan(flat.slope)


def test_a_slope_of_a_half_is_seen_where_the_correlation_is_one():
    agreement = Agreement.of([0.0, 0.2, 0.4], [0.0, 0.1, 0.2], [0, 0, 0])
    assert agreement.pearson == pytest.approx(1) and agreement.slope == pytest.approx(0.5)


def test_the_lower_bound_holds_as_often_as_it_says():
    """Two groups of eight rollouts with a true correlation of 0.9, four thousand times."""
    rng, true, trials = np.random.default_rng(0), 0.9, 4000
    x = rng.normal(size=(trials, 16))
    y = true * x + math.sqrt(1 - true**2) * rng.normal(size=x.shape)
    groups = [0] * 8 + [1] * 8
    held = [Agreement.of(a, b, groups).lower_bound(0.95) <= true for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)
