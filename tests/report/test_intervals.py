import math
from itertools import combinations

import numpy as np
import pytest

from atmanrl.report.answers import Answer
from atmanrl.report.intervals import draws, interval, sums


def answers(rng, problems=40, samples=4, name="p"):
    return [
        Answer(f"{name}/{p:03d}", s, "?", "cot", "1", "1", bool(rng.random() < (p % 10) / 9), int(rng.integers(10, 90)))
        for p in range(problems)
        for s in range(samples)
    ]


def counts(rng, given):
    tokens = np.array([answer.length for answer in given]) - 3
    parts = [rng.integers(0, tokens // 4 + 1) for _ in range(3)]
    return np.stack([tokens, *parts], axis=1)


def by_hand(given, table):
    """Table 1's figures of some rollouts, one loop each."""
    by_problem = {}
    for answer in given:
        by_problem.setdefault(answer.problem, []).append(answer.correct)
    share = {k: np.mean([[any(c) for c in combinations(r, k)] for r in by_problem.values()]) for k in (1, 4)}
    return {
        "tokens_per_cot": np.mean([answer.length for answer in given]),
        **{
            key: 100 * table[:, column].sum() / table[:, 0].sum()
            for column, key in enumerate(("numbers_pct", "stop_words_pct", "symbols_pct"), start=1)
        },
        "pass_at_1": share[1], "pass_at_4": share[4],
    }  # fmt: skip


def test_too_few_samples_have_no_pass_at_k():
    given = answers(np.random.default_rng(0), samples=2)
    found = sums(given, None).metrics()
    assert math.isnan(found["pass_at_4"]) and not math.isnan(found["pass_at_1"])


def test_figures_are_those_of_the_test():
    rng = np.random.default_rng(1)
    given = answers(rng)
    table = counts(rng, given)
    assert sums(given, table).metrics() == pytest.approx(by_hand(given, table))
    assert set(sums(given, None).over) == {"tokens_per_cot", "pass_at_1", "pass_at_4"}


def test_intervals_are_those_of_a_loop_over_problems():
    rng = np.random.default_rng(2)
    given = answers(rng)
    table = counts(rng, given)
    drawn = draws(sums(given, table), resamples=3000)
    looped = {key: [] for key in drawn}
    for _ in range(600):
        chosen = rng.integers(0, 40, size=40)
        rows = np.concatenate([np.arange(4 * p, 4 * p + 4) for p in chosen])
        # a problem drawn twice is two problems
        again = [
            Answer(f"{n // 4}", n % 4, "", "", "", "", given[i].correct, given[i].length) for n, i in enumerate(rows)
        ]
        for key, value in by_hand(again, table[rows]).items():
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
        given = [
            Answer(f"{trial}/{p}", s, "", "", "", "", bool(rng.random() < ease[p]), 1)
            for p in range(60)
            for s in range(4)
        ]
        low, high = interval(draws(sums(given, None), resamples=400)["pass_at_1"])
        hits += low <= 2 / 3 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_resampling_rollouts_would_be_too_narrow():
    given = [Answer(f"p/{p:02d}", s, "", "", "", "", p % 2 == 0, 1) for p in range(50) for s in range(4)]
    low, high = interval(draws(sums(given, None))["pass_at_1"])
    # all samples of a problem agree: 50 independent values and not 200
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 50), rel=0.1)


def test_the_same_problems_are_resampled_alike():
    rng = np.random.default_rng(4)
    given = answers(rng)
    longer = [Answer(a.problem, a.sample, "", "", "", "", a.correct, 2 * a.length) for a in given]
    here, there = (draws(sums(which, None), resamples=200)["tokens_per_cot"] for which in (given, longer))
    np.testing.assert_allclose(there, 2 * here)
    other = draws(sums([Answer(f"q{a.problem}", *list(_fields(a))[1:]) for a in given], None), resamples=200)
    assert abs(np.corrcoef(here, other["tokens_per_cot"])[0, 1]) < 0.3


def _fields(answer):
    return (getattr(answer, name) for name in answer.__dataclass_fields__)


def test_seeded():
    given = answers(np.random.default_rng(5))
    first, again, other = (draws(sums(given, None), resamples=1500, seed=seed)["pass_at_1"] for seed in (0, 0, 1))
    assert len(first) == 1500 and (first == again).all() and not (first == other).all()


def test_no_interval_where_a_draw_is_not_defined():
    assert interval(np.array([1.0, math.nan])) is None and interval(np.array([])) is None
