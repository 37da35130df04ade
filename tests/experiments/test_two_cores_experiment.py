"""AtManRL on two cores: what its steps are, and what it writes down of them."""

import json
import subprocess

import pytest

from experiments.real import summarise, two_cores


def folder_of(work, arm, updates=0):
    folder = work / arm
    (folder / "eval").mkdir(parents=True)
    rows = "".join(f"{n},{n / 10},2.0,0.123456789\n" for n in range(updates))
    if updates:
        validation = f"{updates - 1},,,\n"
        (folder / "metrics.csv").write_text(f"step,accuracy,step_time,grad_norm\n{rows}{validation}")
    (folder / "eval/test.json").write_text(json.dumps({"pass_at_1": 0.3, "setting": {"seed": 0}}))
    completion = {key: 1 for key in two_cores.KEPT} | {"cot": "3 + 4 = 7", "token_ids": [1, 2]}
    (folder / "eval/test.jsonl").write_text(json.dumps(completion) + "\n")
    (folder / "measures.json").write_text(json.dumps({"means": {"cir_gold": 0.5}, "rows": []}))


@pytest.fixture
def calls(monkeypatch):
    calls = []

    def run(command, **_):
        calls.append(command[2:])
        return subprocess.CompletedProcess(command, int("fails" in command))

    monkeypatch.setattr(two_cores.subprocess, "run", run)
    return calls


def test_both_arms_begin_with_the_warm_start_and_differ_in_the_saliency_reward_alone(tmp_path):
    commands = two_cores.steps(tmp_path, 40)
    outcome, saliency = (set(commands[arm]) for arm in ("outcome-0", "saliency-0"))
    assert {word for word in outcome - saliency if not word.startswith("--trainer.default_root_dir")} == {
        two_cores.OUTCOME
    }
    assert f"--model.policy.path={tmp_path / 'warm_start/policy'}" in outcome & saliency
    tests = [set(command) for name, command in commands.items() if name.startswith("test ")]
    assert len(tests) == 3 and len(set.intersection(*tests)) == len(tests[0]) - 2  # folder and policy


def test_a_step_that_is_done_is_not_run_again_and_one_that_failed_is(calls, tmp_path, capsys):
    out = ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "two_cores.json")]
    assert two_cores.main([*out, "--only", "warm_start"]) == 0 and len(calls) == 1
    assert two_cores.main([*out, "--only", "warm_start", "outcome-0"]) == 0 and len(calls) == 2
    assert list(json.loads((tmp_path / "two_cores.json").read_text())["commands"]) == ["warm_start", "outcome-0"]
    assert two_cores.main([*out, "--only", "nothing"]) == 1
    assert "there is no step 'nothing'" in capsys.readouterr().err
    with pytest.raises(two_cores.UserError, match="x ended with status 1: see"):
        two_cores.run(tmp_path, "x", ["fails"])
    assert not (tmp_path / "x.json").exists()


def test_the_figures_are_what_the_summary_reads(calls, tmp_path):
    work, out = tmp_path / "work", tmp_path / "two_cores.json"
    folder_of(work, two_cores.BEFORE)
    folder_of(work, "outcome-0", updates=6)
    assert two_cores.main(["--work", str(work), "--json", str(out), "--only"]) == 0 and calls == []
    results = json.loads(out.read_text())
    assert list(results["steps"]) == ["before", "outcome-0"]
    assert results["steps"]["outcome-0"]["figures"]["training"] == {"updates": 6, "seconds": 12.0}
    assert results["steps"]["outcome-0"]["curve"][1] == {
        "update": 2, "accuracy": 0.1, "step_time": 2.0, "grad_norm": 0.12346,
    }  # fmt: skip
    composed = summarise.compositions(out.with_suffix(".eval.jsonl"), None)
    page = summarise.tables(results, composed)
    assert "| | before (1) | outcome (1) |" in page and "| numbers_pct | 60 | 60 |" in page
    assert "| cir_gold | 0.5 | 0.5 |" in page and "| outcome-0 | 1-5 | 0.2 |" in page
    assert "token_ids" not in out.with_suffix(".eval.jsonl").read_text()
