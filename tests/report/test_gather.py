"""What a report reads of runs, what it refuses, and what it tells."""

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


def test_a_baseline_that_was_not_tested(make):
    gathered = gather([make("a"), make("b", tested=False)])
    assert gathered.table1.baseline is None and "shows no changes" in gathered.notes[-1]


def test_folders_that_are_no_runs(make, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="empty is no run's folder: it has none of config.yaml, metrics.csv"):
        gather([make("a"), tmp_path / "empty"])
    with pytest.raises(ReportError, match="missing is no folder"):
        gather([tmp_path / "missing"])
    with pytest.raises(ReportError, match="nothing to report on .*bare"):
        gather([make("bare", tested=False, updates=0)])
    with pytest.raises(ReportError, match="no run is called 'x y'; there are: a1"):
        gather([make("a1")], baseline="x_y")


def test_two_runs_of_one_name(make, tmp_path, capsys):
    first, second = make("one/run"), make("two/run")
    assert report(tmp_path / "out", first, second) == 1
    assert f"{first} and {second} have the same name" in capsys.readouterr().err
    assert main(["table", str(first), str(second)]) == 1


@pytest.mark.parametrize(("key", "value"), [("tagger", "en_core_web_sm"), ("task", "GSM8K")])
def test_tests_that_cannot_be_compared(make, tmp_path, capsys, key, value):
    runs = make("a"), make("b", setting={key: value})
    for command in (lambda: report(tmp_path / "out", *runs), lambda: main(["table", *map(str, runs), "--baseline=b"])):
        assert command() == 1
        said = capsys.readouterr().err
        assert f"different {key}s" in said and f"{value}: b" in said


def test_tests_that_differ_are_told(make):
    gathered = gather([make("a", setting={"temperature": 0.7}), make("b", problems=9)])
    assert any("different temperatures (0.7: a; 1.0: b)" in note for note in gathered.notes)
    assert any("different problems (a: 12, b: 9; 9 in common)" in note for note in gathered.notes)
    assert {item.problem for item in gathered.comparisons.items} == {f"sums/{n}" for n in range(9)}


def test_rollouts_of_another_test_give_no_intervals(make):
    run = make("a")
    values = json.loads((run / "eval" / "test.json").read_text())
    (run / "eval" / "test.json").write_text(json.dumps({**values, "pass_at_1": values["pass_at_1"] + 0.05}))
    gathered = gather([run])
    assert "test.jsonl is not of the test in test.json (pass_at_1 differ)" in gathered.notes[0]
    assert not gathered.table1.has_intervals and not gathered.comparisons.items


def test_no_rollouts_were_kept(make):
    run = make("a")
    lines = (run / "eval" / "test.jsonl").read_text().splitlines(keepends=True)
    for rank, part in enumerate((lines[:20], lines[18:])):  # two processes, one rollout written by both
        (run / "eval" / f"test.rank{rank}.jsonl").write_text("".join(part))
    (run / "eval" / "test.jsonl").unlink()
    assert gather([run]).table1.has_intervals
    for rank in (0, 1):
        (run / "eval" / f"test.rank{rank}.jsonl").unlink()
    gathered = gather([run])
    assert "kept no rollouts of its test" in gathered.notes[0] and not gathered.table1.has_intervals


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[]", "not list"), ('{"cot": ""}', "'problem_id'")])
def test_damaged_rollouts_are_named(make, line, message):
    run = make("a")
    with (run / "eval" / "test.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ReportError, match=f"test.jsonl, line 49: .*{message}"):
        gather([run])


def test_two_samples_a_problem(make, tmp_path):
    """Their metrics are pass@2 and majority@2; beside a test of four they stand in columns of their own."""
    two = make("two", rollouts=[rollout(p, s, 2, s == 0 and p % 3 > 0) for p in range(12) for s in range(2)])
    assert main(["table", str(two), str(make("four")), "--baseline=four"]) == 0
    table = gather([two, tmp_path / "four"]).table1
    assert table.titles[4:] == ["pass@1 %", "pass@2 %", "pass@4 %", "majority@2 %", "majority@4 %"]
    row = table.rows["two"]
    assert row["pass_at_2"].interval[0] < 66.6 < row["pass_at_2"].interval[1]
    assert row["pass_at_4"].shown == "–" and row["pass_at_4"].change is None


def test_rollouts_of_an_earlier_version_give_no_intervals(make):
    lines = [rollout(p, s, 2, True) for p in range(4) for s in range(4)]
    old = make("old", rollouts=lines)
    rows = [json.loads(line) for line in (old / "eval" / "test.jsonl").read_text().splitlines()]
    (old / "eval" / "test.jsonl").write_text("".join(json.dumps({**row, "metrics": None}) + "\n" for row in rows))
    gathered = gather([old])
    assert "old was tested by an earlier version" in gathered.notes[0] and not gathered.table1.has_intervals
    assert gathered.comparisons.items


def test_a_metric_of_any_name_has_intervals_and_its_condition_is_told(make):
    """All that a report knows of it is what the evaluation recorded."""
    column = {"title": "hops", "higher_is_better": True, "kind": "count", "unit": "hops"}
    judge = {"plural": "judges", "phrase": "judged by {}", "must_agree": True, "caption": "Hops: {0.__class__} {}."}
    recorded = {"columns": {"hops": column}, "conditions": {"judge": judge}}
    lines = [rollout(p, s, 2, True, metrics={"hops": [p + s, 1]}) for p in range(6) for s in range(2)]
    runs = [make(n, rollouts=lines, setting={"judge": {"class_path": j}}, **recorded) for n, j in ("aA", "bB", "cA")]
    table = gather([runs[0], runs[2]]).table1
    assert table.captions == ["Hops: {0.__class__} A."] and table.setting == {"judge": "A"}
    low, high = table.rows["a"]["hops"].interval
    assert low < 3 == table.rows["a"]["hops"].value < high
    with pytest.raises(ReportError, match=r"tested with different judges \(A: a; B: b\)"):
        gather(runs[:2])


@pytest.mark.parametrize(
    "condition", [{}, [], {"plural": ""}, {"plural": "x", "must_agree": "yes"}, {"plural": "x", "phrase": 1}]
)
def test_a_damaged_condition_is_named_by_file(make, condition):
    with pytest.raises(ReportError, match="test.json: conditions cannot be read .*run `atmanrl test` again"):
        gather([make("a", conditions={"task": condition})])


@pytest.mark.parametrize(
    ("names", "chosen", "baseline"),
    [("abc", None, "c"), (["a", "baseline", "c"], None, "baseline"), (["a", "baseline"], "a", "a"), ("a", None, "a")],
)
def test_one_rule_chooses_the_baseline_of_reports_and_tables(make, capsys, names, chosen, baseline):
    """The run that is named, else the one called baseline, else the last; its own row shows no changes."""
    runs = [make(name, filler) for filler, name in enumerate(names)]
    assert gather(runs, chosen).table1.baseline == baseline
    assert main(["table", *map(str, runs), *([f"--baseline={chosen}"] if chosen else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    head, length = (next(line for line in lines if text in line) for text in ("method", "tokens / CoT"))
    cells = dict(zip(re.split("[│┃]", head), re.split("[│┃]", length), strict=True))
    changed = {name.strip() for name, cell in cells.items() if "%" in cell}
    assert changed == set(names) - {baseline}


def test_both_helps_state_the_rule(capsys):
    for command in ("table", "report"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "(default: the one called baseline, else the last)" in " ".join(capsys.readouterr().out.split())
