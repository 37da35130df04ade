"""`atmanrl probe --check`: some traces are solved by the paper's solver too, and the agreement is told and kept."""

import json

import numpy as np
import pytest
import torch
from probe_runs import GOOD, names, probe, read, write

from atmanrl.io.folders import mark
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.rollouts import RolloutBatch, traces

COARSE = ["--probe.solver.steps=20", "--probe.solver.lr=0.01", "--probe.solver.tolerance=0.05"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("source") / "good.jsonl", GOOD)


@pytest.fixture(scope="module")
def whole(tiny_folder, source, tmp_path_factory):
    """The folder of a run with a check of four traces, never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert probe(tiny_folder, source, folder, "--check=4", *COARSE) == 0
    return folder


def solved(tiny_folder, source, solver) -> list[float]:
    policy = Policy(str(tiny_folder)).build()
    rows = [traces.from_json(t, i, policy, "") for i, (_, t) in enumerate(traces.read(source))]
    batches = [rows[start : start + 2] for start in (0, 2, 4)]
    return torch.cat([MaskProbe(solver=solver).solve(policy, RolloutBatch(b, 1)).reward for b in batches]).tolist()


def test_the_agreement_is_that_of_both_solvers_used_directly(whole, source, tiny_folder):
    own = solved(tiny_folder, source, AdaptiveSolver(steps=20, lr=0.01, tolerance=0.05))
    reference = solved(tiny_folder, source, PaperSolver(steps=20, lr=0.01))
    check, rows = json.loads((whole / "summary.json").read_text())["check"], read(whole)
    chosen = [k for k, row in enumerate(rows) if "reference" in row]
    assert len(chosen) == check["traces"] == 4
    assert [row["rewards"]["saliency"] for row in rows] == own  # a check changes no result
    assert [rows[k]["reference"]["reward"] for k in chosen] == pytest.approx([reference[k] for k in chosen], abs=1e-6)
    assert all(len(rows[k]["reference"]["saliency"]) == len(rows[k]["saliency"]) for k in chosen)
    difference = max(abs(own[k] - reference[k]) for k in chosen)
    assert check["largest_difference"] == pytest.approx(difference, abs=1e-6)
    # two of the five have the same prompt, so the others have nobody to be compared with
    pair = [k for k in chosen if GOOD[k]["prompt"] == "3 + 4?"]
    assert check["within_groups"] == (len(pair) == 2)


def test_it_is_printed_stored_and_shown(whole, source, tiny_folder, capsys):
    assert probe(tiny_folder, source, whole, "--check=4", *COARSE) == 0  # finished, and told again
    sentence = json.loads((whole / "summary.json").read_text())["check"]["sentence"]
    assert f"check: {sentence}" in capsys.readouterr().out
    page = (whole / "index.html").read_text()
    assert "4 traces also solved by the paper&#39;s solver" in page and page.count("rank correlation of tokens") == 4


def test_traces_of_different_prompts(tiny_folder, tmp_path):
    rows = [GOOD[0], GOOD[1], *GOOD[3:], {"prompt": "5 - 1?", "cot": "5 - 1 is 4", "gold": "4"}]
    assert probe(tiny_folder, write(tmp_path / "t.jsonl", rows), tmp_path / "out", "--check=5", *COARSE) == 0
    check, found = json.loads((tmp_path / "out/summary.json").read_text())["check"], read(tmp_path / "out")
    pairs = [(row["reference"]["reward"], row["rewards"]["saliency"]) for row in found]
    assert check["pearson"] == pytest.approx(np.corrcoef(*zip(*pairs, strict=True))[0, 1], abs=1e-6)
    assert check["pearson_low"] < check["pearson"] < check["pearson_high"] and not check["within_groups"]


def test_more_than_there_are_takes_all_and_says_so(tiny_folder, tmp_path, capsys):
    path = write(tmp_path / "t.jsonl", [*GOOD[:2], {"prompt": "?", "completion": "so 1", "gold": "1"}])
    assert probe(tiny_folder, path, tmp_path / "out", "--check=9") == 0
    assert json.loads((tmp_path / "out/summary.json").read_text())["check"]["traces"] == 2
    assert "--check asks for 9 traces, and 2 can be probed: all of them are checked" in capsys.readouterr().err


def test_traces_without_a_saliency_leave_nothing_to_check(tiny_folder, tmp_path):
    path = write(tmp_path / "t.jsonl", [{"prompt": "?", "completion": "so 1", "gold": "1"}])
    assert probe(tiny_folder, path, tmp_path / "out", "--check=1") == 0
    assert "check" not in json.loads((tmp_path / "out/summary.json").read_text())


@pytest.mark.parametrize("done", [0, 2, 4])
def test_an_interrupted_check_goes_on_to_the_same_bytes(whole, source, tiny_folder, tmp_path, done):
    out = tmp_path / "out"
    out.mkdir()
    mark(out, "probe")
    lines = (whole / "traces.jsonl").read_bytes().splitlines(keepends=True)
    (out / "traces.part.jsonl").write_bytes(b"".join(lines[:done]))
    summary = json.loads((whole / "summary.json").read_text())
    keys = ("settings", "traces", "skipped", "without_saliency", "device", "dtype", "seconds")
    (out / "progress.json").write_text(json.dumps({k: summary[k] for k in keys}))
    assert probe(tiny_folder, source, out, "--check=4", *COARSE) == 0
    assert names(out) == names(whole)
    for name in ("traces.jsonl", "index.html"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((out / "summary.json").read_text())["check"] == summary["check"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--check=0"], "--check is 0; give at least 1"),
        (["--check=2", "--probe.solver=paper"], "--check compares a solver with the paper's"),
        (["--check=2", "--probe.attribution=Suppression", "--probe.shape=column"], "Suppression has none"),
    ],
)
def test_wrong_checks(source, tiny_folder, tmp_path, capsys, more, message):
    assert probe(tiny_folder, source, tmp_path / "out", *more) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_another_number_is_another_setting(whole, source, tiny_folder, capsys):
    assert probe(tiny_folder, source, whole, "--check=3", *COARSE) == 1
    assert "--check was 4 there and is 3 here" in capsys.readouterr().err
