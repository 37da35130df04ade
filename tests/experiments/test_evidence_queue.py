"""The queue of the evidence: what it runs, in which order, and what it does when it is started again."""

import gzip
import json
from pathlib import Path

import pytest

from experiments.evidence import job as module
from experiments.evidence.arms import ARMS, EARLIER, EVERY, FRONTIER, MULTIPLES, SECOND, STEPS
from experiments.evidence.job import KEPT, Job, StepError
from experiments.evidence.run import carry_out, queue
from experiments.evidence.spread import spreads


def test_seeds_come_one_after_the_other_and_each_arm_has_its_own_number(tmp_path):
    jobs = queue(list(ARMS.values()), None, tmp_path, tmp_path)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == sum(arm.seeds for arm in ARMS.values())
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    assert [job.name for job in queue([ARMS["b"]], [7], tmp_path, tmp_path)] == ["b-7"]


def test_arms_differ_in_their_rewards_and_their_loss_alone():
    for arm in ARMS.values():
        assert arm.config in ("configs/laptop.yaml", "configs/laptop_baseline.yaml")
        assert all(option.startswith(("--model.rewards.", "--model.credit")) for option in arm.options)


def options(arm, step, seed=0):
    """A step's options by name; the last one of a name holds."""
    words = Job(EVERY[arm], seed, Path("runs"), Path("results")).steps()[step]
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_frontier_tries_as_many_weights_for_each_arm():
    assert len(FRONTIER) == 2 * len(MULTIPLES) and len(EVERY) == len(ARMS) + len(FRONTIER) + len(EARLIER) + len(SECOND)
    assert options("b025", "fit")["--model.rewards.saliency.weight"] == "2.5"
    assert options("d050", "fit")["--model.rewards.price.weight"] == "0.5"


def test_settings_are_chosen_on_other_problems_than_those_of_the_test():
    for arm in ("b", "b025", "d050"):
        tuned, tested = options(arm, "tune"), options(arm, "test")
        assert tuned["--data.task.seed"] == "1" and "--data.task.seed" not in tested
        assert tuned["--trainer.default_root_dir"] != tested["--trainer.default_root_dir"]
        assert tuned["--model.policy.path"] == tested["--model.policy.path"]
    assert "tune" not in Job(ARMS["b"], 2, Path("runs"), Path("results")).steps()


def test_an_earlier_update_is_tested_from_the_checkpoint_of_its_run():
    assert list(Job(EVERY["b75"], 3, Path("runs"), Path("results")).steps()) == ["test", "count"]
    tested, full = options("b75", "test", 3), options("b", "test", 3)
    assert tested.pop("--ckpt_path") == "runs/b-3/run/checkpoints/update_00075.ckpt"
    assert full.pop("--model.policy.path") == "runs/b-3/run/policy"
    assert tested.pop("--trainer.default_root_dir") != full.pop("--trainer.default_root_dir") and tested == full


def test_the_second_task_begins_with_its_own_warm_start_of_the_seed():
    trained, rewarded = options("mw", "fit", 1), options("mb", "fit", 1)
    assert (
        rewarded["--model.policy.path"] == trained["--trainer.default_root_dir"] + "/policy" == "runs/mw-1/run/policy"
    )
    assert (trained["--data.task.seed"], rewarded["--data.task.seed"]) == ("0", "2")
    assert options("mw", "test")["--data.task.seed"] == "2" and options("mw", "tune")["--data.task.seed"] == "1"
    measured = Job(SECOND["mb"], 1, Path("runs"), Path("results")).steps()["measure"]
    assert measured[measured.index("--warm-start") + 1] == "runs/mw-1/run/policy"


ROLLOUT = dict.fromkeys(KEPT, 1) | {"prompt_ids": [1], "logprobs": [-0.5]}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job whose commands write what the real ones do; `job.ran` has their names, and a name in `job.fails` fails."""
    made = Job(ARMS["c"], 0, tmp_path / "runs", tmp_path / "results")
    made.folder.mkdir(parents=True)
    ran, fails = [], set()

    def command(self, step, words):
        ran.append(step)
        if step in fails:
            raise StepError(f"{step} ended with status 1")
        for name in {"fit": ("run/metrics.csv",), "test": ("run/eval/test.json", "run/eval/test.jsonl")}.get(step, ()):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(json.dumps(ROLLOUT) if name.endswith("jsonl") else step)

    monkeypatch.setattr(module.Job, "_command", command)
    return made, ran, fails


def test_a_job_that_failed_goes_on_where_it_stood_and_keeps_what_it_had(job):
    made, ran, fails = job
    fails.add("count")
    assert "count ended with status 1" in carry_out(made, STEPS)
    assert ran == ["fit", "test", "count"] and made.state() == "fit, test"
    assert gzip.decompress((made.kept / "metrics.csv.gz").read_bytes()) == b"fit"
    kept = json.loads(gzip.decompress((made.kept / "completions.jsonl.gz").read_bytes()))
    assert kept == dict.fromkeys(KEPT, 1)
    fails.clear()
    begun = json.loads((made.folder / "record.json").read_text())
    begun["seconds_so_far"]["count"] += 100
    (made.folder / "record.json").write_text(json.dumps(begun))
    assert carry_out(made, STEPS) is None
    assert ran == ["fit", "test", "count", "count", "measure"]
    record = json.loads((made.kept / "record.json").read_text())
    assert 100 <= record["steps"]["count"]["seconds"] < 110 and "seconds_so_far" not in record
    assert list(record["steps"]) == list(STEPS) and "--seed_everything=0" in record["steps"]["fit"]["command"]
    assert carry_out(made, STEPS) is None and len(ran) == 5


def test_results_in_the_repository_are_enough_to_be_done(job):
    made, ran, _ = job
    made.kept.mkdir(parents=True)
    record = {"steps": dict.fromkeys(STEPS, {"seconds": 1})}
    (made.kept / "record.json").write_text(json.dumps(record))
    assert carry_out(made, STEPS) is None and ran == []


def test_the_spread_is_that_within_a_problem(tmp_path):
    rows = [("p", 1.0), ("p", 3.0), ("q", 10.0), ("q", 10.0), ("q", None)]
    file = tmp_path / "predictions.jsonl"
    file.write_text("\n".join(json.dumps({"problem_id": p, "rewards": {"length": v}}) for p, v in rows))
    assert spreads(file) == {"length": pytest.approx(2**0.5 / 2)}
