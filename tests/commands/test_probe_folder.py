"""The folder of `atmanrl probe`: other settings, other contents, files of others, disks that refuse."""

import functools
import json
import shutil

import disk
import pytest
from probe_runs import GOOD, half, probe, write

from atmanrl.commands.probe.folder import Folder, content
from atmanrl.errors import UserError
from atmanrl.io.folders import locked

MARK = ".atmanrl-probe"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "good.jsonl", GOOD)


@pytest.fixture(scope="module")
def whole(tiny_folder, source, tmp_path_factory):
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "new/out"
    assert probe(tiny_folder, source, folder) == 0
    return folder


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--probe.init_value=-0.2", "--probe.init_value was -0.4 there and is -0.2 here"),
        ("--probe.solver.steps=4", "--probe.solver.init_args.steps was 3 there and is 4 here"),
        ("--probe.solver=adaptive", "--probe.solver was None there and is 'adaptive' here"),
        ("--dtype=float64", "--dtype was 'auto'"),
        ("--batch_size=3", "--batch_size was 2"),
        ("--limit=4", "--limit was None there and is 4 here"),
        ("--skip_bad_rows=true", "--skip_bad_rows was False"),
    ],
)
def test_other_settings(whole, source, tiny_folder, tmp_path, capsys, finished, more, named):
    out = whole
    if not finished:
        half(whole, out := tmp_path / "out", 3000)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert probe(tiny_folder, source, out, more) == 1
    error = capsys.readouterr().err
    assert f"{out} holds results of other settings: {named}" in error and error.count("\n") == 1
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("missing", "option", "refused"),
    [
        ("skip_bad_rows", "--skip_bad_rows=false", None),
        ("probe.init_value", "--batch_size=2", None),
        ("probe.solver.init_args.compiled", "--probe.solver.compiled=false", None),
        (
            "probe.solver.init_args.compiled",
            "--probe.solver.compiled=true",
            "compiled was False there and is True here",
        ),
        ("probe.solver.init_args.lr", "--probe.solver.lr=0.5", "lr was 0.001 there and is 0.5 here"),
        ("skip_bad_rows", "--skip_bad_rows=true", "--skip_bad_rows was False there and is True here"),
        ("probe.solver.class_path", "--batch_size=2", "--probe.solver.class_path was None there"),
    ],
)
def test_what_an_earlier_version_had_no_option_for_has_its_default(
    whole, source, tiny_folder, tmp_path, capsys, missing, option, refused
):
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    summary = json.loads((out / "summary.json").read_text())
    *parents, last = missing.split(".")
    del functools.reduce(dict.__getitem__, parents, summary["settings"])[last]
    (out / "summary.json").write_text(json.dumps(summary))
    assert probe(tiny_folder, source, out, option) == (0 if refused is None else 1)
    assert (refused or "All done: 5 of 5") in "".join(capsys.readouterr())


def test_other_contents(whole, source, tiny_folder, tmp_path, capsys):
    moved = write(tmp_path / "moved.jsonl", GOOD)
    assert probe(tiny_folder, moved, whole) == 0  # the same content under another name
    write(moved, [*GOOD[:4], {**GOOD[4], "gold": "8"}])
    assert probe(tiny_folder, moved, whole) == 1
    assert "the content of the traces file has changed" in capsys.readouterr().err
    model = tmp_path / "model"
    model.mkdir()
    for each in tiny_folder.iterdir():
        (model / each.name).write_bytes(each.read_bytes())
    assert content(model) == content(tiny_folder)
    assert probe(model, source, whole) == 0
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    assert probe(model, source, whole) == 1
    assert "the content of the model's folder has changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"traces.jsonl": "{}"}, "holds traces.jsonl, which `atmanrl probe` has not made"),
        ({"index.html": "a report's", "summary.json": "{}"}, "holds summary.json, index.html, which `atmanrl probe`"),
        ({MARK: "", "traces.jsonl": "{}"}, "traces.jsonl exists already"),
        ({MARK: "", "traces.part.jsonl": "{}"}, "traces.part.jsonl exists already"),
        ({MARK: "", "progress.json": "{"}, "progress.json is not JSON that can be read"),
        ({MARK: "", "progress.json": "[]"}, "progress.json: input should be an object"),
        ({MARK: "", "progress.json": '{"settings": {}, "traces": -1}'}, "field traces: input should be greater than"),
        (
            {MARK: "", "progress.json": '{"settings": {}, "traces": "5"}'},
            "field traces: input should be a valid integer",
        ),
        ({MARK: "", "traces.jsonl": "{}", "summary.json": '{"mean": 1}'}, "summary.json lacks the field settings"),
    ],
)
def test_files_of_others_are_left_alone(source, tiny_folder, tmp_path, capsys, files, sentence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert probe(tiny_folder, source, tmp_path) == 1
    assert sentence in capsys.readouterr().err
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == files


def test_two_processes_do_not_share_a_folder(source, tiny_folder, tmp_path, capsys):
    with locked(tmp_path, "probe"):
        assert probe(tiny_folder, source, tmp_path) == 1
    assert f"another `atmanrl probe` is at work in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "link", "file/below"])
def test_no_folder_for_results(source, tiny_folder, tmp_path, capsys, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("gone")
    assert probe(tiny_folder, source, tmp_path / place) == 1
    error = capsys.readouterr().err
    assert str(tmp_path / place.split("/")[0]) in error and error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("number", disk.REFUSALS)
@pytest.mark.parametrize("call", ["os.mkdir", "open", "os.fsync", "os.replace"])
def test_a_disk_that_refuses(source, tiny_folder, tmp_path, capsys, monkeypatch, call, number):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        disk.refuse(patch, call, number, out)
        assert probe(tiny_folder, source, out) == 1
    said = [line for line in capsys.readouterr().err.split("\n") if "atmanrl: " in line]
    assert len(said) == 1 and f"atmanrl: error: {out}" in said[0] and disk.REFUSALS[number] in said[0], said
    assert probe(tiny_folder, source, out) == 0


def test_a_folder_needs_the_settings_it_was_begun_with(tmp_path):
    folder = Folder(tmp_path, {"a": {"b": 1}, "traces": "x"})
    folder.begin([], [], 1, "cpu", "float32")
    assert Folder(tmp_path, {"a": {"b": 1}, "traces": "moved"}).progress["traces"] == 1
    with pytest.raises(UserError, match=r"--a\.b was 1 there and is None here"):
        Folder(tmp_path, {"a": {}, "traces": "x"})
