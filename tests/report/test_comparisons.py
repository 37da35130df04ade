"""Which problems a report shows side by side, and what of them."""

# ruff: noqa: F401, F811
import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from run_folders import make, probe, report, rollout
from strict_html import EVIL, Strict

from atmanrl.__main__ import main
from atmanrl.metrics.columns import UNRECORDED
from atmanrl.report.gather import gather
from atmanrl.report.rollouts import read_rollouts
from atmanrl.report.runs import ReportError
from atmanrl.report.write import FILES, write


def test_problems_with_saliency_come_first(make, tmp_path):
    run, other = make("a"), make("b")
    probe(run)
    shown = gather([run, other], examples=5).comparisons
    first, second = shown.items[:2]
    assert first.problem == "sums/0" and first.typical and shown.scale is not None
    assert [bool(side.tokens) for side in first.sides] == [True, False] and not second.sides[0].tokens
    side = first.sides[0]
    assert "".join(text for text, _, _ in side.tokens) == "".join(text for text, _ in side.words) != ""
    assert side.note == "saliency reward 0.500, answer loss 2.000 → 0.100 nats"
    assert {"number", "symbol", "stop"} <= {name for _, name in side.words}
    assert [(text, name) for text, name in side.words if name == "number"][:2] == [("0", "number"), ("2", "number")]
    # the same answers stand side by side
    assert all(len({s.answer for s in item.sides}) == 1 for item in shown.items)


def test_examples_are_the_same_for_everyone(make):
    folders = [make("a"), make("b", 5)]
    first, again = (gather(folders, examples=4).comparisons.items for _ in range(2))
    assert [i.problem for i in first] == [i.problem for i in again]
    assert len(first) == 4 and len(gather(folders, examples=0).comparisons.items) == 0
    assert np.all([len(item.sides) == 2 for item in first])


def test_typical_problems_are_right_everywhere_and_of_mean_length(make):
    """Against a search over all problems and all their right answers; lengths are 8 + 4 (filler + p % 3 + s) tokens."""
    runs = [make("a"), make("b", 5)]
    shown = gather(runs, examples=5).comparisons.items
    assert [item.typical for item in shown] == [True] * 3 + [False] * 2
    answers = [read_rollouts(run) for run in runs]
    means = [np.mean([a.length for a in of]) for of in answers]

    def distance(problem):
        ours = [[a for a in of if a.correct and a.problem == problem] for of in answers]
        return max(min(abs(np.log(a.length / mean)) for a in of) for of, mean in zip(ours, means, strict=True))

    expected = sorted({a.problem for a in answers[0]}, key=lambda p: (distance(p), p))
    assert [item.problem for item in shown[:3]] == expected[:3]
    assert all(side.correct for item in shown[:3] for side in item.sides)
    assert len({item.problem for item in shown}) == 5


def test_where_no_problem_is_right_everywhere_all_are_drawn(make, tmp_path):
    wrong = make("b", rollouts=[rollout(p, s, 1, False) for p in range(5) for s in range(4)])
    shown = gather([make("a"), wrong])
    assert len(shown.comparisons.items) == 5 and not any(item.typical for item in shown.comparisons.items)
    written = {path.name for path in write(shown, tmp_path / "out", "T")}
    assert "figure2.png" in written and "figure3.png" not in written
    assert "Problems are drawn at random (seed 0)" in (tmp_path / "out" / "index.html").read_text()
