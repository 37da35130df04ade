"""A command begins with what, where and how long, and ends with its results and the next command."""

import shlex

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.run_cli import RunCLI

SMALL = [
    "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=8", "--data.val_problems=2",
    "--data.test_problems=3", "--data.eval_samples=2", "--data.task.train_size=20", "--data.task.test_size=4",
    "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def test_a_run_and_the_command_that_it_names(tmp_path, tiny_folder, capsys):
    folder = tmp_path / "a run"
    config = [f"--config={ROOT / 'configs/laptop_baseline.yaml'}", f"--model.policy.path={tiny_folder}"]
    assert main(["fit", *config, f"--trainer.default_root_dir={folder}", "--trainer.max_steps=2", *SMALL]) == 0
    first, second, third, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"fit: {tiny_folder} (") and "on WordProblems; rewards: outcome x 1" in first
    assert second.startswith("on cpu") and f"into {folder}: config.yaml" in second
    assert third == "2 updates of 2 problems x 2 completions, of at most 8 tokens. Ctrl-C saves and ends it."
    assert rest[0].startswith("The first update took") and rest[-2].startswith("2 updates done in")
    command = shlex.split(rest[-1].removeprefix("Next: "))
    assert main(command[1:]) == 0
    out = capsys.readouterr().out
    assert "DataLoader" not in out and "pass@2 %" in out and "3 problems x 2 completions" in out
    last = out.splitlines()[-1]
    assert str(folder / "eval/test.json") in out and last.startswith("Next: atmanrl report")
    assert main(shlex.split(last.removeprefix("Next: "))[1:]) == 0
    assert (folder / "report/index.html").exists()


@pytest.mark.parametrize(("options", "place"), [([], "run"), (["--trainer.logger.save_dir={tmp}/own"], "own")])
def test_a_logger_writes_into_the_runs_folder_unless_it_is_told_another(
    options, place, tmp_path, tiny_folder, monkeypatch
):
    pytest.importorskip("wandb")
    trainers = []
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda self, _: trainers.append(self.trainer))
    config = [f"--config={ROOT / 'configs/laptop_baseline.yaml'}", f"--model.policy.path={tiny_folder}"]
    logger = [
        "--trainer.logger=WandbLogger",
        "--trainer.logger.offline=true",
        *(o.format(tmp=tmp_path) for o in options),
    ]
    assert main(["fit", *config, f"--trainer.default_root_dir={tmp_path / 'run'}", *SMALL, *logger]) == 0
    assert trainers[0].loggers[1].save_dir == str(tmp_path / place)
