"""A check against the paper's solver: against numpy and both solvers, and which traces it takes."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl import explain
from atmanrl.errors import UserError
from atmanrl.probe import AdaptiveSolver, GradientAtStart, MaskProbe, PaperSolver, Solver
from atmanrl.probe.agreement import Agreement
from atmanrl.probe.reference_check import ReferenceCheck, SolvedTwice, check_possible, spearman, spread_over

PROMPT, COT, GOLD = "Tom has 3 apples and buys 4.", " 3 + 4 = 7 apples.\n", "7"
COARSE = {"steps": 20, "lr": 1e-2, "tolerance": 0.05}


def trace(own: float, reference: float, group: str = "a", tokens=((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))) -> SolvedTwice:
    return SolvedTwice(own, tokens[0], reference, tokens[1], group)


def test_explain_agrees_with_direct_use_of_both_solvers(tiny_policy):
    def explained(solver: Solver, **options):
        return explain(tiny_policy.model, tiny_policy.tokenizer, PROMPT, COT, GOLD, solver=solver, **options)

    own, reference = explained(AdaptiveSolver(**COARSE)), explained(PaperSolver(steps=20, lr=1e-2))
    assert own.check is None and "check" not in own.to_json() and "solved by" not in str(own)
    checked = explained(AdaptiveSolver(**COARSE), check=1)
    assert checked.saliency == own.saliency and checked.reward == own.reward
    figures = checked.to_json()["check"]
    assert figures["largest_difference"] == abs(own.reward - reference.reward) > 0
    ranks = [np.argsort(np.argsort(each.saliency)) for each in (own, reference)]
    assert figures["token_spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-6)
    assert (figures["traces"], figures["pearson"], figures["pearson_low"], figures["slope"]) == (1, None, None, None)
    assert json.dumps(figures, allow_nan=False)
    said = str(checked.check)
    assert "1 trace also solved by the paper's solver: one trace has no correlation of rewards" in said
    assert said in str(checked) and said in checked.__rich__().plain and "1 trace also solved" in checked._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": 0}, "check is 0; give at least 1"),
        ({"check": -3}, "check is -3; give at least 1"),
        ({"check": 2}, "check is 2, and explain has one trace to check"),
        ({"check": 1, "solver": "paper"}, "compares a solver with the paper's, which this one is"),
        ({"solver": AdaptiveSolver(agreement=0.99)}, "moves a tolerance while a policy is trained"),
    ],
)
def test_a_check_that_cannot_be_is_refused_before_a_model_is_loaded(options, message):
    with pytest.raises(UserError, match=message):
        explain("nowhere", None, PROMPT, COT, GOLD, **options)


def test_an_attribution_has_no_solver_to_check():
    probe = MaskProbe(solver="adaptive", attribution=GradientAtStart())
    check_possible(probe, None, "--check")
    with pytest.raises(UserError, match="--check checks a solver, and GradientAtStart has none"):
        check_possible(probe, 3, "--check")


def test_traces_of_one_prompt_are_compared_within_their_group():
    own, reference = [0.1, 0.3, 0.2, 5.0, 5.4, 5.1], [0.1, 0.25, 0.2, 9.0, 9.4, 9.2]
    check = ReferenceCheck.of([trace(x, y, "ab"[k // 3]) for k, (x, y) in enumerate(zip(own, reference, strict=True))])
    x, y = (np.array(each).reshape(2, 3) for each in (reference, own))
    x, y = ((each - each.mean(1, keepdims=True)).ravel() for each in (x, y))
    assert check.grouped and check.agreement.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert check.agreement.slope == pytest.approx(np.polyfit(x, y, 1)[0])
    assert check.largest_difference == 9.2 - 5.1  # of rewards themselves
    assert "within groups" in str(check) and "95% interval" in str(check)


def test_traces_of_different_prompts_are_compared_with_one_another():
    own, reference = [0.1, 0.3, 0.2, 0.6, 0.5], [0.12, 0.3, 0.25, 0.55, 0.5]
    check = ReferenceCheck.of([trace(x, y, str(k)) for k, (x, y) in enumerate(zip(own, reference, strict=True))])
    assert not check.grouped and check.agreement.pearson == pytest.approx(np.corrcoef(own, reference)[0, 1])
    low, high = check.agreement.interval(0.95)
    z, half = math.atanh(check.agreement.pearson), 1.959964 / math.sqrt(5 - 3)  # Fisher's transformation
    assert (low, high) == pytest.approx((math.tanh(z - half), math.tanh(z + half)), abs=1e-6)
    assert f"95% interval {low:.4f} to {high:.4f}" in str(check) and "within groups" not in str(check)


def test_few_traces_say_that_they_say_little():
    two = ReferenceCheck.of([trace(0.1, 0.1, "a"), trace(0.3, 0.2, "b")])
    assert "of which so few say next to nothing" in str(two) and two.as_dict()["pearson_low"] is None
    alike = ReferenceCheck.of([trace(0.1, 0.1, "a"), trace(0.1, 0.1, "b")])
    assert "rewards have no correlation" in str(alike) and alike.as_dict()["pearson"] is None
    flat = ReferenceCheck.of([trace(0.1, 0.1, tokens=((1.0, 1.0), (1.0, 2.0)))])
    assert "no rank correlation" in str(flat) and flat.as_dict()["token_spearman"] is None


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, true, trials = np.random.default_rng(0), 0.9, 2000
    x = rng.normal(size=(trials, 16))
    y = true * x + math.sqrt(1 - true**2) * rng.normal(size=x.shape)
    intervals = [
        Agreement.of(a, b, [0] * 8 + [1] * 8).interval(0.9) for a, b in zip(x.tolist(), y.tolist(), strict=True)
    ]
    assert np.mean([low <= true <= high for low, high in intervals]) == pytest.approx(0.9, abs=0.025)


def test_ties_share_their_rank():
    assert spearman([1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]) == pytest.approx(0.9486833)  # as SciPy has it
    assert spearman([0.3, 0.1, 0.2], [0.9, -4.0, 0.0]) == pytest.approx(1)
    assert math.isnan(spearman([1.0], [1.0])) and math.isnan(spearman([], []))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40), st.integers(1, 50))
def test_as_many_traces_are_checked_as_were_asked_for(groups, count):
    chosen = spread_over(groups, count)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(count, len(groups))
    assert set(chosen) <= set(range(len(groups))) and chosen == spread_over(groups, count)
    sizes = {group: groups.count(group) for group in groups}
    if sum(size for size in sizes.values() if size > 1) >= count:
        assert all(sizes[groups[place]] > 1 for place in chosen)


def test_checked_traces_are_spread_over_the_file():
    assert spread_over(list(range(100)), 4) == [12, 37, 62, 87]
    eights = [place // 8 for place in range(80)]
    assert spread_over(eights, 16) == [*range(16, 24), *range(56, 64)]
