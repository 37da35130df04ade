"""The document's own metric, as a user would add it: from an update to the page of a report."""

import csv
import json
import shutil
import sys

import pytest
import yaml
from conftest import ROOT, fenced

from atmanrl.__main__ import main

PAGE = "docs/extending_metrics.md"


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """A trained run, and two that were tested, in a folder that holds the metric's file and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    code = fenced(PAGE, "python", "# checks.py")
    assert len(code.splitlines()) <= 30
    (folder / "checks.py").write_text(code)
    (folder / "own.yaml").write_text(yaml.safe_dump(yaml.safe_load(fenced(PAGE, "yaml", "metrics:"))))
    arguments = [
        f"--config={ROOT / 'configs/laptop.yaml'}", "--config=own.yaml", f"--model.policy.path={tiny_folder}",
        "--trainer.max_steps=1", "--trainer.val_check_interval=1", "--data.queries_per_device=2", "--data.group_size=2",
        "--data.max_new_tokens=8", "--data.val_problems=2", "--data.test_problems=2", "--data.eval_samples=2",
        "--metrics.checks.words=[a,e,i]", "--metrics.majority_at_k=null",
        "--data.task.train_size=20", "--data.task.test_size=5",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [path for path in sys.path if path])
        patch.chdir(folder)
        assert main(["test", *arguments, "--trainer.default_root_dir=ours"]) == 0
        shutil.copytree("ours", "base")
        assert main(["fit", *arguments, "--trainer.default_root_dir=trained"]) == 0
    sys.modules.pop("checks")
    return folder


def test_a_users_metric_is_logged_in_training_and_validation(runs):
    with (runs / "trained/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(any(row[name] for row in rows) for name in ("train/checks", "val/checks", "val/pass_at_2"))
    validation = json.loads((runs / "trained/eval/validation_00001.json").read_text())
    traces = [json.loads(line) for line in (runs / "trained/rollouts/update_00001.jsonl").read_text().splitlines()]
    share = sum(any(word in trace["cot"].lower() for word in "aei") for trace in traces) / len(traces)
    assert float(next(row["train/checks"] for row in rows if row["train/checks"])) == share
    assert 0 <= validation["checks"] <= 1
    assert {"numbers_pct", "pass_at_1"} <= validation.keys() and "majority_at_2" not in validation


def test_an_evaluation_records_a_users_column(runs):
    tested = json.loads((runs / "ours/eval/test.json").read_text())
    assert tested["columns"]["checks"] == {
        "title": "self-checks %", "higher_is_better": True, "kind": "share", "unit": "",
    }  # fmt: skip
    assert list(tested["columns"])[-1] == "checks"


def test_tables_and_reports_show_a_users_metric_without_importing_it(runs, tmp_path, capsys):
    folders = [str(runs / name) for name in ("ours", "base")]
    value = json.loads((runs / "ours/eval/test.json").read_text())["checks"]
    assert main(["table", *folders, "--baseline=base", f"--json={tmp_path / 'table.json'}"]) == 0
    assert "self-checks %" in capsys.readouterr().out
    assert json.loads((tmp_path / "table.json").read_text())["ours"]["checks"] == value
    assert main(["report", *folders, "--baseline=base", f"--out={tmp_path / 'report'}", "--examples=1"]) == 0
    page = (tmp_path / "report/index.html").read_text()
    assert f'data-label="self-checks %"><b>{100 * value:.1f}</b>' in page
    assert 'title="higher is better">self-checks %</th>' in page
    table1 = json.loads((tmp_path / "report/table1.json").read_text())
    assert table1["higher_is_better"]["checks"] is True and table1["units"]["checks"] == "%"
    assert "self-checks %" in (tmp_path / "report/table1.md").read_text()
    assert r"self-checks \%" in (tmp_path / "report/table1.tex").read_text()
    assert "checks" not in sys.modules
