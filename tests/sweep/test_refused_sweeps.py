"""Folders and files that a sweep must not touch, damage that it meets, and disks that refuse."""

import sqlite3
from contextlib import closing

import disk
import pytest
import stub_sweeps
from stub_sweeps import calls, run, table

from atmanrl.__main__ import main
from atmanrl.io.folders import locked, mark

optuna = pytest.importorskip("optuna")
sweep = pytest.fixture(stub_sweeps.sweep)


def test_a_trials_folder_of_the_users_stays(sweep, capsys):
    path = sweep({"x": {"values": [1]}})
    stranger = path.parent / "out/trial_0000/theirs.txt"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    assert run(path) == 1
    assert "trial_0000 was not made by `atmanrl sweep`" in capsys.readouterr().err
    assert stranger.read_text() == "mine"
    assert [file.name for file in (path.parent / "out").iterdir()] == ["trial_0000"]  # no lock, no mark


@pytest.mark.parametrize("name", ["sweep.db", "sweep.csv", "sweep.png"])
def test_a_strangers_file_in_the_sweeps_folder_stays(sweep, capsys, name):
    path = sweep({"x": {"values": [1]}})
    (path.parent / "out").mkdir()
    (path.parent / "out" / name).write_text("mine")
    assert run(path) == 1
    assert f"holds {name}, which `atmanrl sweep` has not made" in capsys.readouterr().err
    assert (path.parent / "out" / name).read_text() == "mine"
    assert [file.name for file in (path.parent / "out").iterdir()] == [name]  # no lock, no mark


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
    ("name", "data", "sentence"),
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
def test_a_trials_damaged_figures_stop_the_sweep_which_goes_on_when_they_are_mended(
    sweep, capsys, name, data, sentence
):
    path = sweep({"x": {"values": [1, 2]}})
    trial = path.parent / "out/trial_0000"
    stub = (path.parent / "stub.py").read_text()
    (path.parent / "stub.py").write_text(
        f"{stub}file = folder / {name!r}\nfile.parent.mkdir(exist_ok=True)\nfile.write_bytes({data!r})\n"
    )
    assert run(path) == 1
    error = capsys.readouterr().err
    assert f"{trial / name}" in error and sentence in error and error.count("\n") == 1
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
    error = capsys.readouterr().err
    assert error.startswith(f"atmanrl: error: {out}") and disk.REFUSALS[number] in error and error.count("\n") == 1
    assert run(path) == 0 and [float(row["score"]) for row in table(path)] == [1.0]


def test_a_sweep_where_nothing_can_be_written(sweep, capsys):
    path = sweep({"x": {"values": [1]}})
    assert main(["sweep", str(path), f"--out={path / 'out'}"]) == 1
    assert f"{path}" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", "tables"], ids=["no bytes", "no study"])
def test_an_emptied_database_is_not_taken_for_a_new_one(sweep, capsys, content):
    path = sweep({"x": {"values": [1, 2]}})
    database = path.parent / "out/sweep.db"
    assert run(path) == 0
    before = table(path)
    if content:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("delete from studies")
            connection.commit()
    else:
        database.write_bytes(content)
    assert run(path) == 1
    error = capsys.readouterr().err
    assert (
        f"{database} is empty, but trials stand beside it; restore it, or remove it" in error and error.count("\n") == 1
    )
    assert table(path) == before
    database.unlink()
    assert run(path) == 0
    assert [row["score"] for row in table(path)] == [row["score"] for row in before]


def test_an_empty_database_of_a_sweep_killed_at_its_start_is_filled(sweep):
    path = sweep({"x": {"values": [1]}})
    mark(path.parent / "out", "sweep")
    (path.parent / "out/sweep.db").write_bytes(b"")
    assert run(path) == 0 and len(calls(path)) == 1


def test_a_trial_of_other_parameters_is_not_taken_for_this_one(sweep, capsys):
    assert run(sweep({"x": {"values": [1]}})) == 0
    path = sweep({"x": {"values": [2]}})
    (path.parent / "out/sweep.db").unlink()
    assert run(path) == 1
    assert 'trial_0000 holds a trial of other parameters, {"x": 1}; move it away' in capsys.readouterr().err


def test_a_folder_is_no_sweep(tmp_path, capsys):
    assert main(["sweep", str(tmp_path)]) == 1
    assert f"{tmp_path} is a folder; give a sweep's YAML file" in capsys.readouterr().err
