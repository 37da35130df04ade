"""The benchmark of a tolerance that calibrates itself."""

import json

import pytest
from conftest import ROOT

from experiments.benchmarks import calibration


def test_judges_the_tolerance_on_problems_that_no_check_has_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "PROBLEMS", 2)
    monkeypatch.setattr(calibration, "STEPS", 6)
    monkeypatch.setattr(calibration, "GROUP", 4)
    out = tmp_path / "found.json"
    out.write_text(json.dumps({"policies": {"another": {}}}))
    folder = ROOT / "experiments/laptop/policy"
    calibration.main([f"--policy=laptop={folder}:word_problems", "--updates=2", "--share=1", f"--json={out}"])
    found = json.loads(out.read_text())["policies"]
    assert set(found) == {"another", "laptop"}
    figures = found["laptop"]
    first, second = figures["course"]
    assert first["tolerance"] == 0.001 and first["checked"] > 0
    assert second["tolerance"] != 0.001  # it follows from the first check
    assert -1 <= figures["interval"][0] <= figures["pearson"] <= figures["interval"][1] <= 1
    assert 2 < figures["rollouts"] <= 8


@pytest.mark.parametrize("option", ["laptop", "laptop=folder", "laptop=folder:gsm8k", "laptop=:multihop"])
def test_refuses_what_is_no_policy_with_its_task(option):
    with pytest.raises(SystemExit, match="give NAME=FOLDER:TASK, with TASK one of word_problems, multihop"):
        calibration.named(option)
