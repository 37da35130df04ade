"""The README's own task and reward, as a user would add them."""

import json
import re
import sys

import pytest
import yaml
from conftest import ROOT

from atmanrl.__main__ import main


def test_the_readmes_plugins_run(tiny_folder, tmp_path, monkeypatch):
    readme = (ROOT / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if block.startswith("# mine.py"))
    added = yaml.safe_load(next(b for b in re.findall(r"```yaml\n(.*?)```", readme, re.S) if "mine.Brevity" in b))
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)  # as the console script: Python itself does not look there
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    config["model"]["init_args"]["rewards"] = added["model"]["init_args"]["rewards"]
    config["data"]["init_args"]["task"] = added["data"]["init_args"]["task"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        "fit", f"--config={tmp_path / 'mine.yaml'}", f"--trainer.default_root_dir={tmp_path / 'run'}",
        f"--model.policy.path={tiny_folder}", "--trainer.max_steps=1", "--data.queries_per_device=2",
        "--data.group_size=2", "--data.max_new_tokens=8",
    ]  # fmt: skip
    assert main(arguments) == 0
    traces = [json.loads(line) for line in (tmp_path / "run/rollouts/update_00001.jsonl").read_text().splitlines()]
    assert {trace["problem_id"].split("/")[0] for trace in traces} == {"doubles"}
    for trace in traces:
        assert trace["rewards"]["brevity"] == pytest.approx(1 - trace["cot_tokens"] / 200)
    assert traces[0]["prompt"].startswith("What is twice ") and "Reason step by step" in traces[0]["prompt"]
