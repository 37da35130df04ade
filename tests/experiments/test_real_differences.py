"""Differences between arms on the same problems."""

import json

import pytest

from experiments.real import differences


def test_arms_are_compared_problem_by_problem_with_the_warm_start_and_with_each_other(tmp_path):
    path = tmp_path / "real.eval.jsonl"
    right = {"before": [0, 0, 0, 1], "outcome-0": [1, 0, 1, 1], "saliency-0": [1, 1, 1, 1]}
    rows = [
        {"arm": arm, "problem_id": str(number // 2), "right": bool(each), "cot_tokens": 10 * (arm == "before")}
        for arm, values in right.items()
        for number, each in enumerate(values)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = differences.table(path)
    assert lines[1] == "| | pass@1 | tokens of the reasoning |"
    assert [line.split("]")[0] for line in lines[3:]] == [
        "| outcome-0 - before | +0.500 [+0.500, +0.500", "| saliency-0 - before | +0.750 [+0.500, +1.000",
        "| saliency-0 - outcome-0 | +0.250 [+0.000, +0.500",
    ]  # fmt: skip
    assert "| -10.000 [-10.000, -10.000] |" in lines[3] and "| +0.000 [+0.000, +0.000] |" in lines[5]


def test_the_interval_is_that_of_the_mean():
    values = differences.np.arange(100.0)
    low, high = differences.interval(values)
    half = 1.96 * values.std() / 10
    assert (low, high) == (pytest.approx(49.5 - half, abs=0.3), pytest.approx(49.5 + half, abs=0.3))


def test_one_arm_alone_has_no_differences(tmp_path):
    path = tmp_path / "real.eval.jsonl"
    path.write_text(json.dumps({"arm": "before", "problem_id": "0", "right": True, "cot_tokens": 3}) + "\n")
    assert differences.table(path) == []
