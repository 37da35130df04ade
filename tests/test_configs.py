"""Every shipped config is complete, and the two that are compared differ in one reward."""

import pytest
import yaml
from conftest import ROOT

from atmanrl.__main__ import main

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_valid(path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert {"trainer", "model", "data", "checkpoint", "composition"} <= printed.keys()


def test_the_baseline_differs_in_the_saliency_reward_alone():
    ours, baseline = (yaml.safe_load((ROOT / f"configs/{n}.yaml").read_text()) for n in ("laptop", "laptop_baseline"))
    del ours["model"]["init_args"]["rewards"]["saliency"]
    for config in (ours, baseline):
        del config["trainer"]["default_root_dir"]
    assert ours == baseline


def test_switching_the_task_keeps_the_instruction(capsys):
    laptop = str(ROOT / "configs/laptop.yaml")
    with pytest.raises(SystemExit):
        main(["fit", "--config", laptop, "--data.task=GSM8K", "--data.task.path=x", "--print_config"])
    task = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["task"]
    assert task["class_path"].endswith("GSM8K")
    assert (task["init_args"]["path"], task["init_args"]["instruction"]) == ("x", "")
