"""Sweeps that run: what is tried, and what is said about each trial."""

import itertools
import json

import pytest
import stub_sweeps
from conftest import ROOT
from stub_sweeps import calls, run, table

from atmanrl.sweep.space import load

optuna = pytest.importorskip("optuna")
sweep = pytest.fixture(stub_sweeps.sweep)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_grid_is_tried_in_its_order(sweep, jobs, capsys):
    path = sweep({"x": {"values": [1, 2.5]}, "y": {"values": [3, 1, 2]}})
    assert run(path, f"--jobs={jobs}") == 0
    rows = table(path)
    assert [(json.loads(r["x"]), json.loads(r["y"])) for r in rows] == list(itertools.product([1, 2.5], [3, 1, 2]))
    assert [float(r["score"]) for r in rows] == [x * y for x, y in itertools.product([1, 2.5], [3, 1, 2])]
    assert {r["state"] for r in rows} == {"done"}
    out = capsys.readouterr().out
    assert "trial_0003, x=2.5, y=3" in out
    assert (path.parent / "out/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "$ /usr/bin/env" in (path.parent / "out/trial_0002/trial.log").read_text()
    assert run(path) == 0 and len(calls(path)) == 6


@pytest.mark.parametrize(
    ("jobs", "own", "threads"),
    [(1, None, "its own choice"), (3, None, "2"), (9, None, "1"), (3, "5", "5")],
)
def test_trials_that_run_at_a_time_divide_the_cores(sweep, monkeypatch, jobs, own, threads):
    monkeypatch.setattr("atmanrl.cores.usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    path = sweep({"x": {"values": [1]}})
    assert run(path, f"--jobs={jobs}") == 0
    assert (path.parent / "out/trial_0000/threads.txt").read_text() == threads


def test_trials_are_counted_in_all(sweep):
    path = sweep({"x": {"values": [1, 2, 3]}})
    assert run(path, "--trials=1") == 0 and len(calls(path)) == 1
    assert run(path, "--trials=2") == 0 and len(calls(path)) == 2
    assert run(path) == 0 and [float(r["score"]) for r in table(path)] == [1, 2, 3]


def test_a_failed_trial_is_recorded_and_not_fatal(sweep, capsys):
    path = sweep({"x": {"values": [1, "bad", 2]}})
    assert run(path) == 0
    assert [(r["state"], r["error"]) for r in table(path)] == [("done", ""), ("failed", "x is bad."), ("done", "")]
    assert "failed: x is bad." in capsys.readouterr().out
    assert run(path) == 0 and len(calls(path)) == 3


def test_no_trial_succeeds(sweep, capsys):
    path = sweep({"x": {"values": ["bad"]}})
    assert run(path) == 1
    assert capsys.readouterr().err.startswith("atmanrl: error: no trial of ")


def test_a_metric_that_is_not_there_can_be_mended(sweep, capsys):
    path = sweep({"x": {"values": [1, 2]}}, metric={"name": "scoer"})
    assert run(path) == 1
    error = capsys.readouterr().err
    assert f"{path}: metric.name 'scoer'" in error and "there are score" in error
    path = sweep({"x": {"values": [1, 2]}})
    assert run(path) == 1 and "another goal" in capsys.readouterr().err
    path = sweep({"x": {"values": [1, 2]}}, metric={"name": "score"})
    assert run(path) == 0 and len(calls(path)) == 2  # what had run is not repeated


def test_another_sweep_in_the_same_folder(sweep, capsys):
    assert run(sweep({"x": {"values": [1]}})) == 0
    assert run(sweep({"x": {"values": [2]}})) == 1
    assert "another parameters" in capsys.readouterr().err
    assert run(sweep({"x": {"values": [1]}}), "--", "--z=1") == 1
    assert "another more" in capsys.readouterr().err


def test_wrong_calls(sweep, capsys):
    assert run(sweep({"x": {"min": 0, "max": 9}}, method="random")) == 1
    assert "has no end" in capsys.readouterr().err
    assert run(sweep({"x": {"values": [1]}}), "--jobs=0") == 1


def test_optuna_is_missing(sweep, monkeypatch, capsys):
    monkeypatch.setattr("atmanrl.commands.sweep.find_spec", lambda name: None)
    assert run(sweep({"x": {"values": [1]}})) == 1
    assert "atmanrl[sweep]" in capsys.readouterr().err


def test_the_shipped_sweeps_say_what_they_run():
    for path in (ROOT / "configs/sweeps").glob("*.yaml"):
        assert "fit" in load(path).command
