"""Sweeps of the real command on the tiny policy."""

import json
import os
import signal

import pytest
import stub_sweeps
import yaml
from conftest import ROOT
from stub_sweeps import background, run, table, until

from atmanrl.__main__ import main

optuna = pytest.importorskip("optuna")
sweep = pytest.fixture(stub_sweeps.sweep)


def real(tmp_path, tiny_folder, parameters, updates=1):
    """A sweep of runs of the tiny policy."""
    small = [
        "fit", f"--config={ROOT / 'configs/laptop.yaml'}", f"--model.policy.path={tiny_folder}",
        f"--trainer.max_steps={updates}", "--trainer.val_check_interval=1", "--checkpoint.every_n_updates=1",
        "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=8", "--data.val_problems=2",
        "--data.test_problems=2", "--data.eval_samples=2", "--data.task.train_size=20", "--data.task.test_size=5",
        "--model.rewards.saliency.probe.solver.steps=2",
    ]  # fmt: skip
    values = {"method": "grid", "metric": {"name": "val/tokens_per_cot", "goal": "minimize"}, "parameters": parameters}
    values["command"] = ["${env}", "${interpreter}", "-m", "atmanrl", *small, "${args}"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "s.yaml"


class InThisProcess:
    """`subprocess` whose commands run here and have ended when they begin: imports of their own would take most of the time.

    That a trial is a process of its own is what the sweeps of the stub command show.
    """

    DEVNULL = STDOUT = None

    class Popen:
        def __init__(self, command, **options):
            self.returncode = main(command[command.index("atmanrl") + 1 :])

        def poll(self):
            return self.returncode


@pytest.mark.timeout(600)
def test_a_run_of_the_tiny_policy_killed_in_the_middle(tiny_folder, tmp_path, monkeypatch):
    """It is resumed, not begun again, and then tested; its rollouts and rewards are those of an unbroken run."""
    path = real(tmp_path, tiny_folder, {"model.rewards.saliency.weight": {"values": [15.0]}}, updates=3)
    trial, whole = tmp_path / "out/trial_0000", tmp_path / "whole"
    process = background(path, before="from atmanrl.sweep.study import Study; Study._check_options = lambda self: None")
    until(lambda: (trial / "checkpoints/update_00001.ckpt").exists(), 300)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    monkeypatch.setattr("atmanrl.sweep.trial.subprocess", InThisProcess)
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
        for resumed, whole_run in zip(broken, unbroken, strict=True):
            assert resumed["rewards"] == pytest.approx(whole_run["rewards"], abs=1e-4, nan_ok=True)


def traces(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_unknown_option(tiny_folder, tmp_path, capsys):
    path = real(tmp_path, tiny_folder, {"model.rewards.saliency.wieght": {"values": [1]}})
    assert run(path) == 1
    error = capsys.readouterr().err
    assert f"{path}: parameters.model.rewards.saliency.wieght" in error and "Traceback" not in error
    assert not (tmp_path / "out/trial_0000").exists()
