"""`fit --ckpt_path=last` by the command line, where no checkpoint was written yet, and a signal's exit status."""

import csv
import os
import signal
import threading
import time

import torch
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.io.files import temporary_path

SMALL = [
    "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=16", "--data.val_problems=2",
    "--data.eval_samples=1", "--data.task.train_size=20", "--data.task.test_size=2", "--checkpoint.every_n_updates=3",
    "--model.rewards.saliency.probe.solver.steps=2", "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip


def fit(folder, policy, updates, *more):
    config = ["--config", str(ROOT / "configs/laptop.yaml"), f"--model.policy.path={policy}"]
    return main(
        ["fit", *config, f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={updates}", *SMALL, *more]
    )


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path, tiny_folder, capsys):
    """What the dead run has left is replaced, none of it is kept, nor is a torn row."""
    dead = tmp_path / "dead"
    for name in ("rollouts/update_00001.jsonl", "rollouts/update_00009.jsonl", "eval/validation_00009.json"):
        (dead / name).parent.mkdir(parents=True, exist_ok=True)
        (dead / name).write_text("of the dead run")
    temporary_path(dead / "rollouts/update_00002.jsonl").write_text("to")
    (dead / "config.yaml").write_text("seed_everything: 0\n")
    (dead / "metrics.csv").write_text("epoch,reward,step\n0,1.0,0\n0,1.0,1\n0,1.")
    assert fit(dead, tiny_folder, 3, "--ckpt_path=last") == 0
    assert "the run begins anew" in capsys.readouterr().err
    assert fit(tmp_path / "fresh", tiny_folder, 3) == 0
    assert files(dead) == files(tmp_path / "fresh")
    for name in files(dead):
        if name.startswith("rollouts"):
            assert (dead / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()
    with (dead / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["reward"]] == ["0", "1", "2"]


def test_a_signal_ends_the_command_with_status_75(tmp_path, tiny_folder, capsys):
    folder = tmp_path / "run"

    def interrupt():
        while not (folder / "rollouts/update_00001.jsonl").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=interrupt, daemon=True).start()
    assert fit(folder, tiny_folder, 400) == 75
    assert "--ckpt_path=last goes on" in capsys.readouterr().err
    assert not (folder / "policy").exists()
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert len(list((folder / "rollouts").iterdir())) == last < 400
    assert main(["validate", "--config", str(ROOT / "configs/laptop.yaml"), f"--model.policy.path={tiny_folder}",
                 f"--trainer.default_root_dir={tmp_path / 'empty'}", *SMALL, "--ckpt_path=last"]) == 1  # fmt: skip
    assert "holds no checkpoint" in capsys.readouterr().err


def test_a_warm_start_goes_on_within_an_epoch(tmp_path, tiny_folder):
    """Eleven updates an epoch; the run that goes on after the fourth passes over the batches that it has seen."""

    def warm(folder, updates, *more):
        return main([
            "fit", "--config", str(ROOT / "configs/laptop_sft.yaml"), f"--model.policy.path={tiny_folder}",
            f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={updates}", "--data.task.train_size=50",
            "--data.val_problems=6", "--data.batch_size=4", "--model.warmup_steps=1", "--trainer.log_every_n_steps=1",
            "--trainer.enable_progress_bar=false", "--trainer.val_check_interval=5", "--checkpoint.every_n_updates=4",
            "--checkpoint.keep=-1", *more,
        ])  # fmt: skip

    assert warm(tmp_path / "whole", 13) == 0
    first = tmp_path / "whole/checkpoints/update_00004.ckpt"
    assert warm(tmp_path / "again", 13, f"--ckpt_path={first}") == 0
    whole, again = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "again")
    )
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
