"""The contest's command on a tiny random policy: traces from a file, methods that are missing, going on, the numbers."""

import json
import subprocess
from argparse import Namespace

import numpy as np
import pytest
from test_attribution_methods import rollouts

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rollouts import traces as trace_files
from experiments.benchmarks.attribution import __main__ as contest
from experiments.benchmarks.attribution import methods, summary, worker
from experiments.benchmarks.attribution.scoring import MEASURES

CHOSEN = ["mask_adaptive", "gradient_at_start", "gradient_x_input", "random"]


@pytest.fixture
def processes(monkeypatch):
    """Workers run in this process, and are counted."""
    started = []

    def run(command, **_):
        started.append(command[command.index("--method") + 1])
        worker.main(command[3:])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return started


@pytest.fixture
def arguments(tiny_folder, tmp_path):
    policy = Policy(str(tiny_folder)).build()
    trace_files.write(rollouts(policy), tmp_path / "traces.jsonl")
    return [
        "--json", str(tmp_path / "out.json"), "--model", str(tiny_folder), "--traces", str(tmp_path / "traces.jsonl"),
        "--work", str(tmp_path / "work"), "--methods", *CHOSEN,
    ]  # fmt: skip


def test_a_missing_library_is_named_and_the_same_command_goes_on(arguments, processes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(methods, "find_spec", lambda name: None)
    contest.main(arguments)
    assert processes == ["mask_adaptive", "gradient_at_start", "random"]
    results = json.loads((tmp_path / "out.json").read_text())
    skipped = results["methods"]["gradient_x_input"]
    assert skipped["skipped"].startswith("captum is not installed") and "measures" not in skipped
    assert "| gradient x input | skipped: captum is not installed" in capsys.readouterr().out
    traces = results["traces"]
    assert [traces[key] for key in ("traces", "left_out", "problems", "right", "wrong")] == [2, 0, 2, 1, 1]
    for name, method in results["methods"].items():
        if name != "gradient_x_input":
            assert method["processor_seconds_a_trace"] >= 0 and method["peak_mib"] >= 0
            for key in MEASURES:
                values, numbers = results["values"][name][key], method["measures"][key]
                assert numbers["value"] == pytest.approx(sum(values) / 2, abs=1e-5)
                assert [numbers["right"], numbers["wrong"]] == pytest.approx(values, abs=1e-5)
                assert numbers["low"] <= numbers["value"] <= numbers["high"]
    (tmp_path / "work/random.json").unlink()
    processes.clear()
    contest.main(arguments)
    assert processes == ["random"]
    again = json.loads((tmp_path / "out.json").read_text())
    assert again["values"] == results["values"]


def test_a_folder_with_other_results_is_refused(arguments, processes, tmp_path):
    contest.main([*arguments[:-4], "random"])
    (tmp_path / "traces.jsonl").write_text((tmp_path / "traces.jsonl").read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="work holds results of another model or of other traces"):
        contest.main(arguments)


@pytest.mark.parametrize("option", ["--limit", "--each"])
def test_fewer_traces_are_those_of_another_contest(arguments, processes, tmp_path, option):
    path = tmp_path / "traces.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n" + path.read_text())  # the first problem has two
    few = [*arguments[:-4], "random", option, "1"]
    contest.main(few)
    found = json.loads((tmp_path / "out.json").read_text())["traces"]
    assert (found["traces"], found["problems"]) == ((1, 1) if option == "--limit" else (2, 2))
    with pytest.raises(UserError, match="of another model or of other traces"):
        contest.main(arguments)


def test_a_rival_that_fails_is_named_and_one_of_ours_stops_the_contest(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nAttributeError: no layers")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    monkeypatch.setattr(methods, "find_spec", lambda name: name)
    args = Namespace(work=tmp_path, model="model", limit=None, each=None)
    rival = contest.run("flashtrace", tmp_path / "t.jsonl", args)
    assert rival == {"skipped": "flashtrace fails: AttributeError: no layers"}
    with pytest.raises(RuntimeError, match="mask_adaptive failed:\nTraceback"):
        contest.run("mask_adaptive", tmp_path / "t.jsonl", args)


def test_losses_are_told_from_wins_and_ties_whichever_way_is_better():
    random = np.random.default_rng(0)
    problems = [f"p/{k}" for k in range(40)]

    def method(level: float) -> dict[str, list[float]]:
        return {key: (level + 0.01 * random.standard_normal(40)).tolist() for key in MEASURES}

    values = {"mask_adaptive": method(0.5), "attention": method(0.7), "flashtrace": method(0.3), "random": method(0.5)}
    compared = summary.comparisons(values, problems)
    outcomes = summary.outcomes(compared)
    assert outcomes["comprehensiveness"] == {"loses_to": ["attention"], "beats": ["flashtrace"]}
    assert outcomes["sufficiency"] == {"loses_to": ["flashtrace"], "beats": ["attention"]}
    assert compared["attention"]["mas_insertion"]["difference"] == pytest.approx(-0.2, abs=0.01)
    assert compared["random"]["mas_insertion"]["p"] > 0.05


def test_traces_of_one_problem_are_drawn_together():
    values = {"m": [0.0, 1.0] * 20}
    alone = summary.means(values, [f"p/{k}" for k in range(40)], [None] * 40)["m"]
    pairs = summary.means(values, [f"p/{k // 2}" for k in range(40)], [None] * 40)["m"]
    assert alone["high"] - alone["low"] > 0.2 and pairs["low"] == pairs["high"] == 0.5
    assert alone["right"] is None and alone["wrong"] is None


def test_agreement_is_the_mean_rank_correlation():
    matrix = summary.agreement({"a": [[1, 2, 3], [1, 2, 3]], "b": [[1, 2, 9], [3, 2, 1]], "c": [[0, 1, 8], [1, 5, 6]]})
    assert matrix["a"]["b"] == pytest.approx(0, abs=1e-5)
    assert matrix["a"]["c"] == matrix["c"]["a"] == pytest.approx(1, abs=1e-5)
