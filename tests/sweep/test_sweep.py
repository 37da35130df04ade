"""Sweeps that run: what is tried, what a kill and a failure leave, and the real command on the tiny policy."""

import csv
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import disk
import pytest
import yaml
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.io.folders import locked, mark
from atmanrl.sweep import results
from atmanrl.sweep.space import load

optuna = pytest.importorskip("optuna")

STUB = """
import pathlib, sys, time
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given.pop("trainer.default_root_dir"))
(folder.parent / "calls.txt").open("a").write(f"{folder.name} {sorted(given.items())}\\n")
wait = folder.parent / "wait"
if wait.exists() and folder.name == wait.read_text():
    time.sleep(60)
if given.get("x") == "bad":
    sys.exit("atmanrl: error: x is bad.")
rows = "step,score\\n0,\\n1," + str(float(given["x"]) * float(given.get("y", 1))) + "\\n2,\\n"
(folder / "metrics.csv").write_text(rows)
"""


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep of the stub command and returns its file; `out` beside it is its folder."""
    (tmp_path / "stub.py").write_text(STUB)

    def write(parameters, **changes):
        said = {"method": "grid", "metric": {"name": "score", "goal": "maximize"}, "parameters": parameters}
        said["command"] = ["${env}", "${interpreter}", str(tmp_path / "stub.py"), "${args}"]
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(said | changes, sort_keys=False))
        return tmp_path / "s.yaml"

    return write


def run(path, *more):
    return main(["sweep", str(path), f"--out={path.parent / 'out'}", *more])


def table(path):
    with (path.parent / "out/sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def calls(path):
    return (path.parent / "out/calls.txt").read_text().splitlines()


def background(path, *more):
    command = [sys.executable, "-m", "atmanrl", "sweep", str(path), f"--out={path.parent / 'out'}", *more]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    try:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, before)


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


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


def test_trials_are_counted_in_all(sweep):
    path = sweep({"x": {"values": [1, 2, 3]}})
    assert run(path, "--trials=1") == 0 and len(calls(path)) == 1
    assert run(path, "--trials=2") == 0 and len(calls(path)) == 2
    assert run(path) == 0 and [float(r["score"]) for r in table(path)] == [1, 2, 3]


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_random_points_do_not_depend_on_interruptions(sweep, method, tmp_path):
    space = {"x": {"min": 0.1, "max": 9.0, "distribution": "log_uniform_values"}, "y": {"min": 1, "max": 5}}
    path = sweep(space, method=method, run_cap=5)
    for most in (2, 3, 5):
        assert run(path, f"--trials={most}") == 0
    assert main(["sweep", str(path), f"--out={tmp_path / 'whole'}"]) == 0
    pieces = [(r["x"], r["y"], r["score"]) for r in table(path)]
    with (tmp_path / "whole/sweep.csv").open(newline="") as file:
        assert [(r["x"], r["y"], r["score"]) for r in csv.DictReader(file)] == pieces
    assert len({x for x, *_ in pieces}) == 5
    assert all(0.1 <= float(x) <= 9 and y in "12345" for x, y, _ in pieces)


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


def _runs(pid, script) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False
    return str(script).encode() in words and b"sweep" not in words


def real(tmp_path, tiny_folder, parameters, updates=1):
    """A sweep of runs of the tiny policy."""
    small = [
        "fit", f"--config={ROOT / 'configs/laptop.yaml'}", f"--model.policy.path={tiny_folder}",
        f"--trainer.max_steps={updates}", "--trainer.val_check_interval=1", "--checkpoint.every_n_updates=1",
        "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=8", "--data.val_problems=2",
        "--data.test_problems=2", "--data.eval_samples=2", "--data.task.train_size=20", "--data.task.test_size=5",
        "--model.rewards.saliency.probe.solver.steps=2",
    ]  # fmt: skip
    said = {"method": "grid", "metric": {"name": "val/tokens_per_cot", "goal": "minimize"}, "parameters": parameters}
    said["command"] = ["${env}", "${interpreter}", "-m", "atmanrl", *small, "${args}"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(said))
    return tmp_path / "s.yaml"


@pytest.mark.timeout(600)
def test_a_run_of_the_tiny_policy_killed_in_the_middle(tiny_folder, tmp_path):
    """It is resumed, not begun again, and then tested; its rollouts and rewards are those of an unbroken run."""
    path = real(tmp_path, tiny_folder, {"model.rewards.saliency.weight": {"values": [15.0]}}, updates=3)
    trial, whole = tmp_path / "out/trial_0000", tmp_path / "whole"
    process = background(path)
    until(lambda: (trial / "checkpoints/update_00001.ckpt").exists(), 300)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run(path) == 0
    (row,) = table(path)
    assert row["state"] == "done" and float(row["model.rewards.saliency.weight"]) == 15 and row["test/pass_at_2"]
    assert json.loads((trial / "trial.json").read_text())["done"] == ["fit", "test"]
    first, second, third = (line for line in (trial / "trial.log").read_text().splitlines() if line.startswith("$ "))
    assert " fit " in first and "--ckpt_path" not in first
    assert " fit " in second and second.endswith("--ckpt_path=last") and " test " in third
    words = first.split()
    options = [w for w in words[words.index("fit") :] if "default_root_dir" not in w]
    assert main([*options, f"--trainer.default_root_dir={whole}"]) == 0
    for update in ("00001", "00002", "00003"):
        broken, unbroken = (traces(folder / f"rollouts/update_{update}.jsonl") for folder in (trial, whole))
        assert [t["completion_ids"] for t in broken] == [t["completion_ids"] for t in unbroken]
        for ours, theirs in zip(broken, unbroken, strict=True):
            assert ours["rewards"] == pytest.approx(theirs["rewards"], abs=1e-4, nan_ok=True)


def traces(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_unknown_option(tiny_folder, tmp_path, capsys):
    path = real(tmp_path, tiny_folder, {"model.rewards.saliency.wieght": {"values": [1]}})
    assert run(path) == 1
    error = capsys.readouterr().err
    assert f"{path}: parameters.model.rewards.saliency.wieght" in error and "Traceback" not in error
    assert not (tmp_path / "out/trial_0000").exists()


def test_optuna_is_missing(sweep, monkeypatch, capsys):
    monkeypatch.setattr("atmanrl.commands.sweep.find_spec", lambda name: None)
    assert run(sweep({"x": {"values": [1]}})) == 1
    assert "atmanrl[sweep]" in capsys.readouterr().err


def test_the_shipped_sweeps_say_what_they_run():
    for path in (ROOT / "configs/sweeps").glob("*.yaml"):
        assert "fit" in load(path).command


def test_the_plot_keeps_the_values_of_the_other_parameters_apart(sweep, tmp_path, monkeypatch):
    """A line for each of them, through the means of trials that share a value."""
    from matplotlib.figure import Figure

    space = load(sweep({"x": {"values": [1, 2]}, "kind": {"values": ["a", "b"]}}))
    rows = [
        {"trial": n, "x": x, "kind": kind, "score": score, "seconds": 1}
        for n, (x, kind, score) in enumerate([(1, "a", 1.0), (1, "a", 3.0), (2, "a", 5.0), (1, "b", 7.0)])
    ]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.write_bytes(b"")))
    assert results.draw(tmp_path / "plot.png", space, rows, 3)
    over_x, over_kind = drawn[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in over_x.lines} == {
        "kind = a": [[1, 2], [2, 5]], "kind = b": [[1, 7]],
    }  # fmt: skip
    assert [label.get_text() for label in over_kind.get_xticklabels()] == ["a", "b"]
    assert len(over_x.collections) == 4


def test_a_trials_folder_of_the_users_stays(sweep, capsys):
    path = sweep({"x": {"values": [1]}})
    mine = path.parent / "out/trial_0000/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run(path) == 1
    assert "trial_0000 was not made by `atmanrl sweep`" in capsys.readouterr().err
    assert mine.read_text() == "mine" and not (path.parent / "out/calls.txt").exists()


@pytest.mark.parametrize("name", ["sweep.db", "sweep.csv", "sweep.png"])
def test_a_strangers_file_in_the_sweeps_folder_stays(sweep, capsys, name):
    path = sweep({"x": {"values": [1]}})
    (path.parent / "out").mkdir()
    (path.parent / "out" / name).write_text("mine")
    assert run(path) == 1
    assert f"holds {name}, which `atmanrl sweep` has not made" in capsys.readouterr().err
    assert (path.parent / "out" / name).read_text() == "mine"


def test_a_damaged_database_and_a_damaged_trial(sweep, capsys):
    path = sweep({"x": {"values": [1, "bad"]}})
    out = path.parent / "out"
    assert run(path, "--trials=1") == 0
    whole = (out / "sweep.db").read_bytes()
    for name in ("study_user_attributes", "trial_user_attributes"):
        with closing(sqlite3.connect(out / "sweep.db")) as database:
            database.execute(f"update {name} set value_json = '{{'")
            database.commit()
        assert run(path) == 1
        error = capsys.readouterr().err
        assert f"{out / 'sweep.db'} cannot be used" in error and error.count("\n") == 1
        (out / "sweep.db").write_bytes(whole)
    (out / "sweep.db").write_bytes(b"no database at all" * 100)
    assert run(path) == 1
    error = capsys.readouterr().err
    assert f"{out / 'sweep.db'} cannot be used" in error and error.count("\n") == 1
    mark(out / "trial_0001", "sweep")
    (out / "trial_0001/trial.json").write_text('{"parameters": {}, "done": ["fit"], "seconds": -1}')
    (out / "sweep.db").unlink()
    (out / "trial_0000/trial.json").write_text("{")
    assert run(path) == 1
    assert "trial.json is not JSON that can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("metrics.csv", b"step,score\n0,1,2\n", "line 2: more values than columns; mend it, or remove"),
        ("metrics.csv", b"step,score\n0," + b"1" * 200_000 + b"\n", "can be read (field larger than field limit"),
        ("metrics.csv", b"step,score\n0,\xff\n", "is no CSV file that can be read ('utf-8' codec"),
        ("eval/test.json", b"{", "test.json cannot be read: not JSON (Expecting"),
        ("eval/test.json", b"[1]", "test.json cannot be read: must be a JSON object, not list; mend it"),
        ("eval/test.json", b'{"pass_at_1": NaN}', "test.json cannot be read: not JSON (NaN"),
        ("eval/test.json", b'{"a": 1' + b"0" * 5000 + b"}", "test.json cannot be read: not JSON that can be read"),
        ("eval/test.json", b'{"a": "\\ud800"}', "test.json cannot be read: field 'a' holds no text"),
    ],
)
def test_a_trials_damaged_figures_stop_the_sweep_which_goes_on_when_they_are_mended(sweep, capsys, name, data, says):
    path = sweep({"x": {"values": [1, 2]}})
    trial = path.parent / "out/trial_0000"
    stub = (path.parent / "stub.py").read_text()
    (path.parent / "stub.py").write_text(
        f"{stub}file = folder / {name!r}\nfile.parent.mkdir(exist_ok=True)\nfile.write_bytes({data!r})\n"
    )
    assert run(path) == 1
    said = capsys.readouterr().err
    assert f"{trial / name}" in said and says in said and said.count("\n") == 1
    (path.parent / "stub.py").write_text(stub)
    file = trial / name
    file.write_text("step,score\n0,7\n") if name.endswith("csv") else file.unlink()
    assert run(path) == 0
    expected = [7.0 if name.endswith("csv") else 1.0, 2.0]
    assert [float(row["score"]) for row in table(path)] == expected and len(calls(path)) == 2


def test_two_sweeps_on_a_fresh_folder(sweep, monkeypatch, capsys):
    path = sweep({"x": {"values": [1]}})
    with locked(path.parent / "out", "sweep"):
        monkeypatch.setattr("atmanrl.commands.sweep.PATIENCE", 0.1)
        assert run(path) == 1
    assert "another `atmanrl sweep` is at work in" in capsys.readouterr().err
    assert not (path.parent / "out/sweep.db").exists()


@pytest.mark.parametrize("number", disk.REFUSALS)
@pytest.mark.parametrize("call", ["os.mkdir", "open", "os.replace"])
def test_a_disk_that_refuses(sweep, capsys, monkeypatch, call, number):
    path = sweep({"x": {"values": [1]}})
    out = path.parent / "out"
    with monkeypatch.context() as patch:
        disk.refuse(patch, call, number, out)
        assert run(path) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"atmanrl: error: {out}") and disk.REFUSALS[number] in said and said.count("\n") == 1
    assert run(path) == 0 and [float(row["score"]) for row in table(path)] == [1.0]


def test_a_sweep_where_nothing_can_be_written(sweep, capsys):
    path = sweep({"x": {"values": [1]}})
    assert main(["sweep", str(path), f"--out={path / 'out'}"]) == 1
    assert f"{path}" in capsys.readouterr().err
