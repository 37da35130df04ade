"""The learning check: its figures against a plain calculation, and its refusal to mix settings. No training."""

import json
import statistics
import sys

import pytest

pytest.importorskip("matplotlib")
from experiments.benchmarks import grpo_learning  # noqa: E402


def runs() -> list[dict]:
    """Three seeds with evaluations at updates 0, 5 and 10."""
    ours = [[0.70, 0.74, 0.76], [0.60, 0.61, 0.66], [0.80, 0.80, 0.81]]
    theirs = [[0.70, 0.72, 0.75], [0.60, 0.62, 0.65], [0.80, 0.83, 0.84]]
    return [
        {
            "seed": seed,
            "atmanrl": {"accuracy": a, "training_accuracy": [0.5, 0.6]},
            "trl": {"accuracy": b, "training_accuracy": [0.4, 0.6]},
        }
        for seed, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]


def test_differences_are_paired_by_seed_and_leave_the_warm_start_out():
    found = grpo_learning.summary(runs(), every=5)
    by_seed = [0.015, 0.0, -0.03]
    assert found["difference_mean"] == pytest.approx(sum(by_seed) / 3)
    assert found["difference_se"] == pytest.approx(statistics.stdev(by_seed) / 3**0.5)
    assert found["not_below"]
    assert [row["update"] for row in found["evaluations"]] == [5, 10]
    assert found["evaluations"][1]["difference_mean"] == pytest.approx((0.01 + 0.01 - 0.03) / 3)
    assert found["gain"]["trl"]["mean"] == pytest.approx((0.05 + 0.05 + 0.04) / 3)
    assert found["training"]["difference_mean"] == pytest.approx(0.05)
    assert found["warm_start"] == pytest.approx(0.70)


def test_a_trainer_that_learns_less_in_every_seed_is_below():
    behind = runs()
    for number, run in enumerate(behind):
        run["atmanrl"]["accuracy"] = [x - 0.05 - 0.001 * number for x in run["trl"]["accuracy"]]
    assert not grpo_learning.summary(behind, every=5)["not_below"]


def test_results_of_another_setting_are_not_added_to(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"setting": {"lr": 1.0}, "runs": []}))
    monkeypatch.setattr(sys, "argv", ["grpo_learning", "--json", str(path)])
    with pytest.raises(SystemExit, match="other settings"):
        grpo_learning.main()


def test_a_finished_result_is_only_drawn(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["grpo_learning", "--json", str(path), "--seeds", "3", "--every", "5"])
    trained = {run["seed"]: run for run in runs()}
    monkeypatch.setattr(grpo_learning, "run", lambda seed, args: trained.pop(seed))
    grpo_learning.main()
    first = path.read_text()
    grpo_learning.main()  # a seed trained again would not be found
    assert path.read_text() == first and json.loads(first)["runs"] == runs()
    assert path.with_suffix(".png").stat().st_size > 1000 and path.with_suffix(".svg").stat().st_size > 1000
