import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from atmanrl.report.intervals import draws, interval, sums
from atmanrl.report.rollouts import StoredRollout

PARTS = ("numbers_pct", "stop_words_pct", "symbols_pct")
KEYS = ("tokens_per_cot", *PARTS, "pass_at_1", "pass_at_4")


def rollouts(rng, problems=40, samples=4, name="p"):
    """Rollouts with what they add to each metric; what a problem's samples add together stands at the first."""
    stored = []
    for p in range(problems):
        correct = rng.random(samples) < (p % 10) / 9
        for s in range(samples):
            length = int(rng.integers(10, 90))
            counts = rng.integers(0, (length - 3) // 4 + 1, size=3)
            metrics = {"tokens_per_cot": (length, 1)} | {
                key: (100 * int(count), length - 3) for key, count in zip(PARTS, counts, strict=True)
            }
            if s == 0:
                metrics |= {"pass_at_1": (correct.mean(), 1), "pass_at_4": (float(correct.any()), 1)}
            stored.append(StoredRollout(f"{name}/{p:03d}", s, "?", "cot", "1", "1", bool(correct[s]), length, metrics))
    return stored


def outcomes(correct, name="p"):
    """Rollouts of problems of which only pass@1 is known, from a table of what is right."""
    return [
        StoredRollout(f"{name}/{p:02d}", s, "", "", "", "", bool(right), 1, {"pass_at_1": (float(right), 1)})
        for p, row in enumerate(correct)
        for s, right in enumerate(row)
    ]


def by_hand(stored):
    """The metrics of some rollouts, one loop each."""
    by_problem = {}
    for rollout in stored:
        by_problem.setdefault(rollout.problem, []).append(rollout.correct)
    share = {k: np.mean([[any(c) for c in combinations(r, k)] for r in by_problem.values()]) for k in (1, 4)}
    return {
        "tokens_per_cot": np.mean([rollout.length for rollout in stored]),
        **{key: sum(r.metrics[key][0] for r in stored) / sum(r.length - 3 for r in stored) for key in PARTS},
        "pass_at_1": share[1], "pass_at_4": share[4],
    }  # fmt: skip


def test_values_are_those_of_the_test():
    stored = rollouts(np.random.default_rng(1))
    assert sums(stored, KEYS).values() == pytest.approx(by_hand(stored))
    assert set(sums(stored, {"pass_at_4"}).fractions) == {"pass_at_4"}


def test_intervals_are_those_of_a_loop_over_problems():
    rng = np.random.default_rng(2)
    stored = rollouts(rng)
    drawn = draws(sums(stored, KEYS), resamples=3000)
    looped = {key: [] for key in drawn}
    for _ in range(600):
        chosen = rng.integers(0, 40, size=40)
        # a problem drawn twice is two problems
        again = [replace(stored[4 * p + s], problem=f"{n}") for n, p in enumerate(chosen) for s in range(4)]
        for key, value in by_hand(again).items():
            looped[key].append(value)
    for key, values in drawn.items():
        spread = np.std(looped[key])
        np.testing.assert_allclose(np.std(values), spread, rtol=0.12, err_msg=key)
        np.testing.assert_allclose(interval(values), np.percentile(looped[key], [2.5, 97.5]), atol=0.4 * spread)


def test_coverage():
    """Of the tests of many policies drawn alike, about 95 % have the true mean within their interval."""
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        ease = rng.beta(2, 1, size=60)  # the samples of one problem are alike, so rollouts are not independent
        stored = outcomes(rng.random((60, 4)) < ease[:, None], str(trial))
        low, high = interval(draws(sums(stored, KEYS), resamples=400)["pass_at_1"])
        hits += low <= 2 / 3 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_resampling_rollouts_would_be_too_narrow():
    stored = outcomes([[p % 2 == 0] * 4 for p in range(50)])
    low, high = interval(draws(sums(stored, KEYS))["pass_at_1"])
    # all samples of a problem agree: 50 independent values and not 200
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 50), rel=0.1)


def test_the_same_problems_are_resampled_alike():
    stored = rollouts(np.random.default_rng(4))
    longer = [replace(r, metrics={"tokens_per_cot": (2 * r.length, 1)}) for r in stored]
    others = [replace(r, problem=f"q{r.problem}") for r in stored]
    here, there, elsewhere = (
        draws(sums(which, KEYS), resamples=200)["tokens_per_cot"] for which in (stored, longer, others)
    )
    np.testing.assert_allclose(there, 2 * here)
    assert abs(np.corrcoef(here, elsewhere)[0, 1]) < 0.3


def test_seeded():
    stored = rollouts(np.random.default_rng(5))
    first, again, other = (draws(sums(stored, KEYS), resamples=1500, seed=s)["pass_at_1"] for s in (0, 0, 1))
    assert len(first) == 1500 and (first == again).all() and not (first == other).all()


def test_no_interval_where_a_draw_is_not_defined():
    assert interval(np.array([1.0, math.nan])) is None and interval(np.array([])) is None
