"""`atmanrl probe`: wherever it is killed, going on gives the same bytes."""

import json

import disk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_runs import GOOD, count_solves, half, names, probe, write

from atmanrl.commands.probe.folder import Folder
from atmanrl.models.policy import Policy


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "good.jsonl", GOOD)


@pytest.fixture(scope="module")
def whole(tiny_folder, source, tmp_path_factory):
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "new/out"
    assert probe(tiny_folder, source, folder) == 0
    return folder


@pytest.fixture
def solves(monkeypatch):
    return count_solves(monkeypatch)


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_going_on_after_a_failure(whole, source, tiny_folder, tmp_path, solves, batch):
    solves.fail_at = batch
    with pytest.raises(RuntimeError, match="killed"):
        probe(tiny_folder, source, tmp_path / "out")
    part = tmp_path / "out/traces.part.jsonl"
    kept = part.read_bytes() if part.exists() else b""
    assert kept.count(b"\n") == 2 * batch and (whole / "traces.jsonl").read_bytes().startswith(kept)
    assert "traces.jsonl" not in names(tmp_path / "out")
    solves.fail_at, solves.calls = None, 0
    assert probe(tiny_folder, source, tmp_path / "out") == 0
    assert solves.calls == 3 - batch
    assert names(tmp_path / "out") == names(whole)
    for name in ("traces.jsonl", "index.html"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_an_interruption_says_how_to_go_on(source, tiny_folder, tmp_path, solves, capsys):
    solves.fail_at, solves.error = 1, KeyboardInterrupt()
    assert probe(tiny_folder, source, tmp_path / "o u t") == 130
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("atmanrl: interrupted") and f"'--out={tmp_path}/o u t'" in said[0]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_kept_is_whole_batches(whole, tmp_path, data):
    results_, out = (whole / "traces.jsonl").read_bytes(), tmp_path / "out"
    size = data.draw(st.integers(0, len(results_)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 50, b"{}", b'{"half": \n{}\n', b"\n\n", b"7\n"]))
    half(whole, out, size, tail)
    folder = Folder(out, json.loads((whole / "summary.json").read_text())["settings"])
    done = folder.rewind(2, [1, 2, 3, 4, 5])
    lines = results_.splitlines(keepends=True)
    assert (out / "traces.part.jsonl").read_bytes() == b"".join(lines[:done])
    # a tail may close the very line that was cut off before its end
    best = sum((results_[:size] + tail).startswith(b"".join(lines[:n])) for n in range(1, 6))
    assert done == (5 if best == 5 else best // 2 * 2)
    assert folder.rewind(2, [1, 2, 3, 4, 5]) == done


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_going_on_after_a_cut_at_any_byte(whole, source, tiny_folder, tmp_path, share):
    out, results_ = tmp_path / "out", (whole / "traces.jsonl").read_bytes()
    half(whole, out, round(share * len(results_)))
    assert probe(tiny_folder, source, out) == 0
    assert (out / "traces.jsonl").read_bytes() == results_ and names(out) == names(whole)


def test_what_is_done_needs_no_model(whole, source, tiny_folder, tmp_path, monkeypatch, capsys):
    def build(self):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(Policy, "build", build)
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()}
    assert probe(tiny_folder, source, whole) == 0
    assert "All done: 5 of 5 traces probed" in capsys.readouterr().out
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in whole.iterdir()} == before
    half(whole, tmp_path / "out", 10**9)  # killed after the last batch, before the summary
    assert probe(tiny_folder, source, tmp_path / "out") == 0
    assert (tmp_path / "out/index.html").read_bytes() == (whole / "index.html").read_bytes()
    assert names(tmp_path / "out") == names(whole)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (0, 1, 1, 3), (0, 2, 3, 4), (2, 3, 0, 1)])
def test_results_out_of_their_place_are_probed_again(whole, source, tiny_folder, tmp_path, order):
    half(whole, out := tmp_path / "out", 0)
    lines = (whole / "traces.jsonl").read_bytes().splitlines(keepends=True)
    (out / "traces.part.jsonl").write_bytes(b"".join(lines[place] for place in order))
    assert probe(tiny_folder, source, out) == 0
    assert (out / "traces.jsonl").read_bytes() == (whole / "traces.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("done", "field", "value"),
    [(2, "traces", 2), (2, "traces", 10**30), (4, "traces", 6), (2, "skipped", [4, 5]), (5, "skipped", [1]),
     (2, "without_saliency", [5])],
)  # fmt: skip
def test_a_note_that_was_changed_is_refused(whole, source, tiny_folder, tmp_path, capsys, done, field, value):
    half(whole, out := tmp_path / "out", 0)
    lines = (whole / "traces.jsonl").read_bytes().splitlines(keepends=True)
    (out / "traces.part.jsonl").write_bytes(b"".join(lines[:done]))
    note = json.loads((out / "progress.json").read_text())
    note[field] = [{"line": line, "reason": "bad"} for line in value] if isinstance(value, list) else value
    (out / "progress.json").write_text(json.dumps(note))
    assert probe(tiny_folder, source, out) == 1
    assert f"{out / 'progress.json'}: field {field} does not fit the traces" in capsys.readouterr().err
    assert (out / "traces.part.jsonl").read_bytes() == b"".join(lines[:done]), "nothing that was computed is lost"


def test_a_disk_that_is_full_after_the_first_batch(source, tiny_folder, tmp_path, capsys, whole):
    with disk.full_disk():
        assert probe(tiny_folder, source, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "the file is larger than" in said and said.count("atmanrl: error: ") == 1
    assert probe(tiny_folder, source, tmp_path / "out") == 0
    assert (tmp_path / "out/traces.jsonl").read_bytes() == (whole / "traces.jsonl").read_bytes()
