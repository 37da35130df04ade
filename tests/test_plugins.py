"""The documents' own plugins, as a user would add them: each in a folder that holds nothing else, for one update."""

import csv
import inspect
import json
import re
import shlex
import sys

import pytest
import yaml
from conftest import ROOT, fenced

from atmanrl.__main__ import main
from atmanrl.grpo import ClippedLoss


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder of the user's; as with the console script, Python itself does not look there."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def merge(config: dict, changes: dict) -> None:
    """Put a page's lines of YAML into a config; classes are replaced whole."""
    for key, value in changes.items():
        if isinstance(value, dict) and key in config and "class_path" not in value and key != "rewards":
            merge(config[key], value)
        else:
            config[key] = value


def updated(folder, tiny_folder, *arguments: str) -> list[dict]:
    """The rollouts of one update."""
    small = ["--trainer.max_steps=1", "--trainer.limit_val_batches=0", "--data.queries_per_device=2"]
    run = [f"--trainer.default_root_dir={folder / 'run'}", f"--model.policy.path={tiny_folder}"]
    assert main([*arguments, *run, *small, "--data.group_size=2", "--data.max_new_tokens=8"]) == 0
    return [json.loads(line) for line in (folder / "run/rollouts/update_00001.jsonl").read_text().splitlines()]


def with_page(folder, module: str, page: str = "docs/extending.md") -> str:
    """Write a module of the page, and a config with the page's lines; returns the option that names it."""
    (folder / f"{module}.py").write_text(fenced(page, "python", f"# {module}.py"))
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.S)
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    config["data"]["init_args"]["task"]["init_args"]["train_size"] = 120
    merge(config, yaml.safe_load(next(block for block in blocks if f"{module}." in block)))
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    return "--config=own.yaml"


def test_a_users_task_and_reward(tiny_folder, alone):
    traces = updated(alone, tiny_folder, "fit", with_page(alone, "mine"))
    assert {trace["problem_id"].split("/")[0] for trace in traces} == {"doubles"}
    for trace in traces:
        assert trace["rewards"]["brevity"] == pytest.approx(1 - trace["cot_tokens"] / 200)
    assert traces[0]["prompt"].startswith("What is twice ") and "Reason step by step" in traces[0]["prompt"]


def test_a_users_solver(tiny_folder, alone):
    updated(alone, tiny_folder, "fit", with_page(alone, "descent"))
    assert "descent.GradientDescent" in (alone / "run/config.yaml").read_text()


def test_the_readmes_reward(tiny_folder, alone):
    (alone / "brevity.py").write_text(fenced("README.md", "python", "# brevity.py"))
    lines = re.findall(r"^atmanrl fit .*", (ROOT / "README.md").read_text(), re.M)
    command = shlex.split(next(line for line in lines if "brevity.Brevity" in line))
    rewards = next(word for word in command if word.startswith("--model.rewards="))
    traces = updated(
        alone, tiny_folder, "fit", f"--config={ROOT / 'configs/laptop.yaml'}", rewards, "--data.task.train_size=120"
    )
    for trace in traces:
        assert trace["rewards"]["brevity"] == pytest.approx(1 - trace["cot_tokens"] / 200)


def test_a_users_loss_and_callback(tiny_folder, alone):
    page = "docs/extending_losses.md"
    option = with_page(alone, "credit", page)
    (alone / "watch.py").write_text(fenced(page, "python", "# watch.py"))
    assert all(len((alone / name).read_text().splitlines()) <= 30 for name in ("credit.py", "watch.py"))
    traces = updated(alone, tiny_folder, "fit", option, "--trainer.callbacks+=watch.Longest")
    (row,) = csv.DictReader((alone / "run/metrics.csv").open())
    assert len(traces) == 4 and float(row["reinforce/ratio"]) > 0 and "longest_right" in row
    assert not any(name.startswith("clip_ratio") for name in row)


def test_the_page_of_losses_names_every_option_with_its_default():
    block = next(b for b in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/extending_losses.md").read_text(), re.S))
    shown = yaml.safe_load(block)["model"]["init_args"]["loss"]["init_args"]
    options = inspect.signature(ClippedLoss).parameters.values()
    assert shown == {option.name: option.default for option in options}
