"""What a kill and an interruption leave: the same command goes on, and draws the points that it would have drawn."""

import csv
import os
import signal

import pytest
import stub_sweeps
from stub_sweeps import background, calls, run, table, until

from atmanrl.__main__ import main

optuna = pytest.importorskip("optuna")
sweep = pytest.fixture(stub_sweeps.sweep)


def _runs(pid, script) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return str(script).encode() in words and b"sweep" not in words


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_random_points_do_not_depend_on_interruptions(sweep, method, tmp_path):
    space = {"x": {"min": 0.1, "max": 9.0, "distribution": "log_uniform_values"}, "y": {"min": 1, "max": 5}}
    path = sweep(space, method=method, run_cap=5)
    for most in (2, 3, 5):
        assert run(path, f"--trials={most}") == 0
    assert main(["sweep", str(path), f"--out={tmp_path / 'unbroken'}"]) == 0
    interrupted = [(r["x"], r["y"], r["score"]) for r in table(path)]
    with (tmp_path / "unbroken/sweep.csv").open(newline="") as file:
        assert [(r["x"], r["y"], r["score"]) for r in csv.DictReader(file)] == interrupted
    assert len({x for x, *_ in interrupted}) == 5
    assert all(0.1 <= float(x) <= 9 and y in "12345" for x, y, _ in interrupted)


def test_a_killed_sweep_goes_on(sweep):
    path = sweep({"x": {"values": [1, 2, 3]}})
    out = path.parent / "out"
    out.mkdir()
    (out / "wait").write_text("trial_0001")
    process = background(path)
    until(lambda: (out / "calls.txt").exists() and len(calls(path)) == 2)
    stub = [int(p) for p in os.listdir("/proc") if p.isdigit() and _runs(p, path.parent / "stub.py")]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(_runs(pid, path.parent / "stub.py") for pid in stub))  # no trial outlives its sweep
    (out / "wait").unlink()
    assert run(path) == 0
    assert [c.split()[0] for c in calls(path)] == ["trial_0000", "trial_0001", "trial_0001", "trial_0002"]
    assert [float(r["score"]) for r in table(path)] == [1, 2, 3]


def test_an_interrupted_sweep_goes_on(sweep):
    path = sweep({"x": {"values": [1, 2]}})
    out = path.parent / "out"
    out.mkdir()
    (out / "wait").write_text("trial_0000")
    process = background(path)
    until(lambda: (out / "calls.txt").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130 and b"the same command goes on" in process.stderr.read()
    (out / "wait").unlink()
    assert run(path) == 0 and [r["state"] for r in table(path)] == ["done", "done"]
