"""A whole run of the laptop policy on two processes by the command line, against the same run on one."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from launch import GROUP_TIMEOUT, ROOT, launch

from atmanrl.__main__ import main

POLICY = ROOT / "experiments/laptop/policy"
TASKS = {name: {"class_path": "WordProblems", "init_args": {"train_size": 20, "test_size": 5, "seed": seed}}
         for seed, name in enumerate(("stories", "tales"))}  # fmt: skip
MIXTURE = {"class_path": "MixtureTask", "init_args": {"tasks": TASKS}}
FSDP2 = [
    "--trainer.devices=2", "--trainer.strategy.class_path=atmanrl.distributed.FSDP2Strategy",
    f"--trainer.strategy.init_args.timeout_seconds={GROUP_TIMEOUT}",
]  # fmt: skip


def options(folder: Path, processes: int) -> list[str]:
    return [
        "--config", str(ROOT / "configs/laptop.yaml"), f"--model.policy.path={POLICY}",
        f"--trainer.default_root_dir={folder}", f"--data.queries_per_device={4 // processes}", "--data.group_size=2",
        f"--model.minibatch_queries={2 // processes}", "--data.max_new_tokens=80", "--data.val_problems=5",
        "--data.test_problems=3", "--data.eval_samples=2", "--data.eval_queries=2", f"--data.task={json.dumps(MIXTURE)}",
        "--data.resample_zero_spread=1", "--rollout_table.every_n_updates=1", "--rollout_table.rollouts=1",
        "--model.rewards.saliency.probe.solver=PaperSolver",
        "--model.rewards.saliency.probe.solver.steps=4", "--model.rewards.saliency.probe.solver.lr=0.05",
        "--trainer.val_check_interval=2", "--checkpoint.every_n_updates=1", "--checkpoint.keep=-1",
        *(FSDP2 if processes == 2 else []),
    ]  # fmt: skip


def fit(folder: Path, processes: int, *more: str) -> list[str]:
    return ["fit", *options(folder, processes), "--trainer.max_steps=3", *more]


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def figures(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if v and "time" not in k and "seconds" not in k}
                for row in csv.DictReader(file)]  # fmt: skip


def close(ours: dict, theirs: dict, tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < tolerance


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """`one` and `two`: whole runs; `two_of_one` and `one_of_two`: the other's run resumed after its second update."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(fit(folder / "one", 1)) == 0
    shutil.copytree(folder / "one", folder / "two_of_one")
    ours, resumed = folder / "two", folder / "two_of_one"
    (folder / "commands.json").write_text(json.dumps([
        fit(ours, 2),
        ["validate", *options(ours, 2), f"--ckpt_path={ours}/checkpoints/update_00002.ckpt"],
        ["test", *options(ours, 2), f"--ckpt_path={ours}/checkpoints/update_00002.ckpt"],
        fit(resumed, 2, f"--ckpt_path={resumed}/checkpoints/update_00002.ckpt"),
    ]))  # fmt: skip
    launch(Path(__file__).with_name("commands.py"), folder / "commands.json")
    shutil.copytree(ours, folder / "one_of_two")
    theirs = folder / "one_of_two"
    assert main(fit(theirs, 1, f"--ckpt_path={theirs}/checkpoints/update_00002.ckpt")) == 0
    return folder


def test_two_process_fit_is_that_of_one(runs):
    for update in (1, 2, 3):
        ours, theirs = (lines(runs / name / f"rollouts/update_0000{update}.jsonl") for name in ("two", "one"))
        assert [(t["row"], t["sample"], t["completion_ids"]) for t in ours] == [
            (t["row"], t["sample"], t["completion_ids"]) for t in theirs
        ]
        for mine, expected in zip(ours, theirs, strict=True):
            assert mine["rewards"] == pytest.approx(expected["rewards"], abs=1e-4)
        close(weights(runs / "two", f"update_0000{update}"), weights(runs / "one", f"update_0000{update}"))
    moved = weights(runs / "one", "update_00003"), weights(runs / "one", "update_00001")
    assert max(float((moved[0][name] - moved[1][name]).abs().max()) for name in moved[0]) > 1e-3


def test_two_process_figures_are_those_of_one(runs):
    ours, theirs = figures(runs / "two"), figures(runs / "one")
    assert any(0 < row.get("resampled/groups", 0) < 1 for row in theirs)  # else the options of the run say nothing
    assert any(0 < row.get("accuracy", 0) < 1 for row in theirs) and any("val/tales/pass_at_2" in row for row in theirs)
    assert len(ours) == len(theirs) == 4  # three updates, and an evaluation
    for mine, expected in zip(ours, theirs, strict=True):
        assert mine.keys() == expected.keys()
        # of several processes' probes the means are averaged, whatever they have probed
        same = [name for name in mine if not name.startswith(("probe/", "saliency/"))]
        assert {n: mine[n] for n in same} == pytest.approx({n: expected[n] for n in same}, abs=1e-5)


def test_two_process_files_are_written_once_and_whole(runs):
    ours, theirs = ({str(p.relative_to(runs / name)) for p in (runs / name).rglob("*") if p.is_file()}
                    for name in ("two", "one"))  # fmt: skip
    assert ours - theirs == {"eval/validate.json", "eval/validate.jsonl", "eval/test.json", "eval/test.jsonl"}
    assert theirs <= ours


def test_two_process_evaluation_is_that_of_one(runs, tmp_path):
    for command, rollouts in (("validate", 10), ("test", 6)):
        checkpoint = runs / "one/checkpoints/update_00002.ckpt"
        assert main([command, *options(tmp_path, 1), f"--ckpt_path={checkpoint}"]) == 0
        ours, theirs = (json.loads((f / f"eval/{command}.json").read_text()) for f in (runs / "two", tmp_path))
        for found in (ours, theirs):
            found.pop("setting")
        for described in ("columns", "conditions"):
            assert ours.pop(described) == theirs.pop(described)
        assert ours == pytest.approx(theirs, abs=1e-6)
        ours, theirs = (lines(f / f"eval/{command}.jsonl") for f in (runs / "two", tmp_path))
        assert len(ours) == rollouts
        assert [t["completion_ids"] for t in ours] == [t["completion_ids"] for t in theirs]


def test_two_process_checkpoints_travel(runs):
    close(weights(runs / "two_of_one", "update_00003"), weights(runs / "one", "update_00003"))
    close(weights(runs / "one_of_two", "update_00003"), weights(runs / "two", "update_00003"))


def test_two_process_export(runs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = ["--ckpt", str(runs / "two/checkpoints/last.ckpt"), "--out", str(tmp_path / "hf")]
    assert main(["export", *arguments]) == 0
    ids = AutoTokenizer.from_pretrained(tmp_path / "hf")("Tom has 3 apples.", return_tensors="pt").input_ids
    logits = [
        AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32)(ids).logits
        for f in (tmp_path / "hf", runs / "two/policy", POLICY)
    ]
    assert torch.equal(logits[0], logits[1]) and not torch.allclose(logits[0], logits[2], atol=1e-4)
    assert main(["export", *arguments]) == 1  # it exists already


def test_one_process_by_fsdp2(runs, tmp_path):
    """As the shipped configs run on one device."""
    try:
        one = [*options(tmp_path, 1), "--trainer.strategy=fsdp2", "--trainer.devices=1", "--trainer.max_steps=1"]
        assert main(["fit", *one]) == 0
    finally:
        torch.distributed.destroy_process_group()
    close(weights(tmp_path, "update_00001"), weights(runs / "one", "update_00001"), 1e-6)
