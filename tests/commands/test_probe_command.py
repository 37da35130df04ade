"""`atmanrl probe`: wherever it is killed, going on gives the same bytes; bad rows, changed settings, figures, page."""

import json
import statistics
from pathlib import Path

import disk
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atmanrl.__main__ import main
from atmanrl.commands.probe import results
from atmanrl.commands.probe.folder import Folder, content
from atmanrl.errors import UserError
from atmanrl.io.folders import locked, mark
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.rollouts import RolloutBatch, traces

MARK = ".atmanrl-probe"
GOOD = [
    {"prompt": "3 + 4?", "cot": "3 + 4 = 7.", "gold": "7", "right": True, "rewards": {"outcome": 0.0, "saliency": 9.0}},
    {"prompt": "2 * <b>5</b> & x?", "completion": "so <i>2</i> * 5 = 10. ##### 11", "gold": "10", "right": False},
    {"prompt": "3 + 4?", "cot": "a longer text \u00e9\U0001f600 about 3 and 4, which make 7", "answer": "7"},
    {"prompt": "1 + 1?", "cot": "two", "gold": "2", "problem_id": "<script>alert(1)</script>"},
    {"prompt": "9 - 2?", "cot": "9 - 2 = 7", "gold": "7"},
]
OPTIONS = ["--batch_size=2", "--probe.solver=AdaptiveSolver", "--probe.solver.steps=3", "--device=cpu"]
BAD = [
    ('{"prompt": "?"', "not JSON"),
    ('{"prompt": "caf\xe9", "cot": "a", "gold": "1"}'.encode("latin-1"), "not UTF-8"),
    ("[1]", "JSON object"),
    ({"cot": "a", "gold": "1"}, "'prompt' is missing"),
    ({"prompt": "?", "gold": "1"}, "'cot'"),
    ({"prompt": "?", "cot": "a"}, "'gold'"),
    ({"prompt": "?", "cot": "a", "gold": 1}, "'gold' must be a text"),
    ({"prompt": "?", "cot": "\ud800", "gold": "1"}, "'cot' holds no text that can be used"),
    ({"prompt": "?", "cot": "a", "gold": " "}, "' ' has no token"),
    ({"prompt": "?", "cot": "a " * 3000, "gold": "1"}, "exceed the model's context"),
    ({"prompt": "?", "cot": "so ##### 1", "gold": "1"}, "'cot' holds the delimiter"),
    ({"prompt": "?", "completion_ids": [99999], "gold": "1"}, "vocabulary of 768"),
]


def write(path: Path, rows) -> Path:
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def probe(model, path, out, *more) -> int:
    return main(["probe", f"--model={model}", f"--traces={path}", f"--out={out}", *OPTIONS, *more])


def names(folder) -> set[str]:
    """The files in a folder but for mark and lock."""
    return {p.name for p in folder.iterdir() if not p.name.startswith(".atmanrl-probe")}


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
    """Counts the batches that are probed, and fails in one of them."""

    class Counter:
        calls, fail_at, error = 0, None, RuntimeError("killed")

    real = MaskProbe.solve_targets

    def solve(self, policy, targets):
        Counter.calls += 1
        if Counter.calls - 1 == Counter.fail_at:
            raise Counter.error
        return real(self, policy, targets)

    monkeypatch.setattr(MaskProbe, "solve_targets", solve)
    return Counter


def read(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "traces.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]


def test_results_are_those_of_the_probe(whole, source, tiny_folder):
    assert names(whole) == {"traces.jsonl", "summary.json", "index.html"}
    policy = Policy(str(tiny_folder)).build()
    rows = [traces.from_json(t, i, policy, "") for i, (_, t) in enumerate(traces.read(source))]
    module, found = MaskProbe(solver=AdaptiveSolver(steps=3)), read(whole)
    assert [t["line"] for t in found] == [1, 2, 3, 4, 5]
    for start in (0, 2, 4):
        batch = rows[start : start + 2]
        result = module.solve(policy, RolloutBatch(batch, 1))
        for k, trace in enumerate(found[start : start + 2]):
            assert trace["rewards"]["saliency"] == float(result.reward[k]) != 9.0
            assert trace["saliency"] == result.saliency[k] and len(trace["saliency"]) == len(trace["pieces"])
            assert (trace["loss_initial"], trace["loss_final"]) == (
                float(result.loss_initial[k]), float(result.loss_final[k])
            )  # fmt: skip
            assert trace["gradients"] == int(result.gradients[k]) > 0
            assert "".join(trace["pieces"]) == trace["cot"] == batch[k].parts.cot
    assert found[0]["rewards"]["outcome"] == 0.0 and found[0]["right"] is True and found[1]["right"] is False


def test_the_summary_is_that_of_the_traces(whole):
    summary, found = json.loads((whole / "summary.json").read_text()), read(whole)
    columns = {n: [t[n] for t in found] for n in ("loss_initial", "loss_final", "gradients")}
    columns["saliency"] = [t["rewards"]["saliency"] for t in found]
    for name, values in columns.items():
        assert summary[name]["mean"] == pytest.approx(sum(values) / len(values), rel=1e-12)
        assert summary[name]["std"] == pytest.approx(statistics.stdev(values), rel=1e-12, abs=1e-15)
    assert (summary["traces"], summary["probed"], summary["skipped"]) == (5, 5, [])
    assert summary["settings"]["probe"]["solver"]["init_args"]["steps"] == 3
    assert summary["versions"]["torch"] == torch.__version__ and summary["seconds"] > 0
    assert summary["command"][:2] == ["atmanrl", "probe"] and summary["device"] == "cpu"
    lone = results.metrics(iter(found[:1]))
    assert lone["saliency"] == {"mean": columns["saliency"][0], "std": None}
    assert results.metrics([])["saliency"] == {"mean": None, "std": None}


def test_the_page_escapes_what_it_shows(whole):
    page = (whole / "index.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page and "<b>5</b>" not in page and "<i>2</i>" not in page
    assert "&lt;script&gt;alert(1)" in page and "5 of 5 traces" in page


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


def half(whole, out, size: int, tail: bytes = b"") -> None:
    """A folder as it is when a run was killed after `size` bytes of its results."""
    out.mkdir(parents=True, exist_ok=True)
    for each in out.iterdir():
        each.unlink()
    mark(out, "probe")
    (out / "traces.part.jsonl").write_bytes((whole / "traces.jsonl").read_bytes()[:size] + tail)
    summary = json.loads((whole / "summary.json").read_text())
    keys = ("settings", "traces", "skipped", "without_saliency", "device", "dtype", "seconds")
    (out / "progress.json").write_text(json.dumps({k: summary[k] for k in keys}))


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


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--probe.init_value=-0.2", "--probe.init_value was -0.4 there and is -0.2 here"),
        ("--probe.solver.steps=4", "--probe.solver.init_args.steps was 3 there and is 4 here"),
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


def test_a_disk_that_is_full_after_the_first_batch(source, tiny_folder, tmp_path, capsys, whole):
    with disk.full_disk():
        assert probe(tiny_folder, source, tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "the file is larger than" in said and said.count("atmanrl: error: ") == 1
    assert probe(tiny_folder, source, tmp_path / "out") == 0
    assert (tmp_path / "out/traces.jsonl").read_bytes() == (whole / "traces.jsonl").read_bytes()


@pytest.mark.parametrize(("row", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_row_stops_the_command_before_anything_is_probed(tiny_folder, tmp_path, solves, capsys, row, reason):
    path = write(tmp_path / "t.jsonl", [GOOD[0], "", row, GOOD[1]])
    assert probe(tiny_folder, path, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert error.startswith(f"atmanrl: error: {path}, line 3: ") and reason in error and "--skip_bad_rows" in error
    assert error.count("\n") == 1 and solves.calls == 0
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


def test_bad_rows_are_skipped_and_listed(tiny_folder, tmp_path, capsys, solves):
    rows = [GOOD[0], *[row for row, _ in BAD], GOOD[1], GOOD[4]]
    path = write(tmp_path / "t.jsonl", rows)
    solves.fail_at = 1
    with pytest.raises(RuntimeError):
        probe(tiny_folder, path, tmp_path / "out", "--skip_bad_rows=true")
    solves.fail_at = None
    assert probe(tiny_folder, path, tmp_path / "out", "--skip_bad_rows") == 0
    summary, said = json.loads((tmp_path / "out/summary.json").read_text()), capsys.readouterr().out
    assert [bad["line"] for bad in summary["skipped"]] == list(range(2, 2 + len(BAD)))
    for bad, (_, reason) in zip(summary["skipped"], BAD, strict=True):
        assert reason in bad["reason"] and f"skipped line {bad['line']}: {bad['reason']}" in said
    assert (summary["traces"], summary["probed"]) == (len(rows), 3)
    assert [t["line"] for t in read(tmp_path / "out")] == [1, len(rows) - 1, len(rows)]


SILENT = [
    ({"prompt": "?", "cot": " \n", "gold": "1"}, "reasoning before the delimiter is empty"),
    ({"prompt": "?", "completion": "##### 1", "gold": "1"}, "reasoning before the delimiter is empty"),
    ({"prompt": "?", "completion": "so 1", "gold": "1"}, "no delimiter #####"),
    ({"prompt": "?", "cot": "so", "answer": None, "completion_ids": [5, 6], "gold": "1"}, "no delimiter #####"),
]


def test_a_rollout_without_a_saliency_is_no_bad_row(tiny_folder, tmp_path, capsys):
    rows = [GOOD[0], *[row for row, _ in SILENT], GOOD[1]]
    assert probe(tiny_folder, write(tmp_path / "t.jsonl", rows), tmp_path / "out") == 0
    summary, said = json.loads((tmp_path / "out/summary.json").read_text()), capsys.readouterr().out
    assert (summary["traces"], summary["probed"], summary["skipped"]) == (6, 2, [])
    assert [row["line"] for row in summary["without_saliency"]] == [2, 3, 4, 5]
    for row, (_, reason) in zip(summary["without_saliency"], SILENT, strict=True):
        assert reason in row["reason"] and f"no saliency: line {row['line']}: {row['reason']}" in said
    assert "2 of 6 traces probed, 4 without a saliency" in said
    assert [t["line"] for t in read(tmp_path / "out")] == [1, 6]
    assert probe(tiny_folder, tmp_path / "t.jsonl", tmp_path / "out") == 0  # finished, and told again
    path = write(tmp_path / "silent.jsonl", [row for row, _ in SILENT])
    assert probe(tiny_folder, path, tmp_path / "silent") == 0
    assert json.loads((tmp_path / "silent/summary.json").read_text())["probed"] == 0 and read(tmp_path / "silent") == []


def test_nothing_that_can_be_probed(tiny_folder, tmp_path, capsys):
    path = write(tmp_path / "t.jsonl", [row for row, _ in BAD[:3]])
    assert probe(tiny_folder, path, tmp_path / "out", "--skip_bad_rows") == 1
    assert "none of the 3 traces" in capsys.readouterr().err
    assert probe(tiny_folder, write(path, ["", " "]), tmp_path / "out") == 1
    assert "holds no trace" in capsys.readouterr().err
    assert probe(tiny_folder, tmp_path / "absent.jsonl", tmp_path / "out") == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "named"), [("--limit=0", "--limit is 0"), ("--batch_size=0", "--batch_size is 0")])
def test_wrong_options(source, tiny_folder, tmp_path, capsys, more, named):
    assert probe(tiny_folder, source, tmp_path / "out", more) == 1
    assert named in capsys.readouterr().err


def test_limit_and_options_from_a_file(tiny_folder, tmp_path):
    path = write(tmp_path / "t.jsonl", [GOOD[0], "", *GOOD[1:3], "not looked at"])
    config = tmp_path / "probe.yaml"
    config.write_text(
        f"model: {tiny_folder}\ntraces: {path}\nout: {tmp_path / 'out'}\nlimit: 2\ndevice: cpu\n"
        "probe:\n  solver: {class_path: AdaptiveSolver, init_args: {steps: 2}}\n"
    )
    assert main(["probe", f"--config={config}", "--limit=3"]) == 0
    assert [t["line"] for t in read(tmp_path / "out")] == [1, 3, 4]
    assert main(["probe", f"--config={config}", "--limit=3"]) == 0
    again = ["--traces", str(tmp_path / "out/traces.jsonl"), f"--out={tmp_path / 'again'}"]
    assert main(["probe", f"--config={config}", "--limit=3", *again]) == 0  # results are traces too
    one, two = read(tmp_path / "out"), read(tmp_path / "again")
    assert [{**t, "line": 0} for t in one] == [{**t, "line": 0} for t in two]


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["probe", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(option in said for option in ("--skip_bad_rows", "--limit", "--traces", "goes on when"))


def test_a_folder_needs_the_settings_it_was_begun_with(tmp_path):
    folder = Folder(tmp_path, {"a": {"b": 1}, "traces": "x"})
    folder.begin([], [], 1, "cpu", "float32")
    assert Folder(tmp_path, {"a": {"b": 1}, "traces": "moved"}).progress["traces"] == 1
    with pytest.raises(UserError, match=r"--a\.b was 1 there and is None here"):
        Folder(tmp_path, {"a": {}, "traces": "x"})
