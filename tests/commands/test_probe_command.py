"""`atmanrl probe`: its results, their summary and page; bad rows, and traces without a saliency."""

import json
import statistics

import pytest
import torch
from probe_runs import GOOD, count_solves, names, probe, read, write

from atmanrl.__main__ import main
from atmanrl.commands.probe import results
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.rollouts import RolloutBatch, traces

BAD = [
    ('{"prompt": "?"', "not JSON"),
    ('{"prompt": "caf\xe9", "cot": "a", "gold": "1"}'.encode("latin-1"), "not UTF-8"),
    ("[1]", "JSON object"),
    ({"cot": "a", "gold": "1"}, "'prompt' is missing"),
    ({"prompt": "?", "gold": "1"}, "'cot'"),
    ({"prompt": "?", "cot": "a"}, "'gold'"),
    ({"prompt": "?", "cot": "a", "gold": [1, 2]}, "'gold' must be a text or a number"),
    ({"prompt": "?", "cot": "\ud800", "gold": "1"}, "'cot' holds no text that can be used"),
    ({"prompt": "?", "cot": "a", "gold": " "}, "' ' has no token"),
    ({"prompt": "?", "cot": "a " * 3000, "gold": "1"}, "exceed the model's context"),
    ({"prompt": "?", "cot": "so ##### 1", "gold": "1"}, "'cot' holds the delimiter"),
    ({"prompt": "?", "completion_ids": [99999], "gold": "1"}, "vocabulary of 768"),
]


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
        main(["probe", "--help_all"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(option in said for option in ("--skip_bad_rows", "--limit", "--traces", "goes on when"))
