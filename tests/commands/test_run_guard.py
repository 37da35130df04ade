"""A run's folder by the command line: what no command may touch, two at once, failed starts, disks of all kinds."""

import errno
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.checkpoint import files as checkpoint_files
from atmanrl.io.folders import locked


def command(folder, policy, *more) -> list[str]:
    """`fit` for two updates in a folder; takes further options."""
    return [
        "fit", "--config", str(ROOT / "configs/laptop_baseline.yaml"), f"--model.policy.path={policy}",
        f"--trainer.default_root_dir={folder}", "--trainer.max_steps=2", "--data.queries_per_device=2",
        "--data.group_size=2", "--data.max_new_tokens=8", "--data.val_problems=2", "--data.eval_samples=2",
        "--data.test_problems=2", "--data.task.train_size=20", "--data.task.test_size=20",
        "--trainer.val_check_interval=1000", "--trainer.enable_progress_bar=false", *more,
    ]  # fmt: skip


@pytest.fixture
def fit(tmp_path, tiny_folder):
    """Runs `fit` in a folder of this test."""
    return lambda *more, folder="run": main(command(tmp_path / folder, tiny_folder, *more))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_folder):
    """The folder of a finished run, to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(command(folder, tiny_folder)) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A finished run in the folder where `fit` would put it."""
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_of_a_finished_run_is_touched(run, fit, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "other", symlinks=True)
    before = contents(run)
    assert fit("--trainer.fast_dev_run=true") == 0
    assert "of which nothing is kept" in capsys.readouterr().err and contents(run) == before
    assert fit() == 1
    assert f"{run} already holds a run (metrics.csv)" in capsys.readouterr().err and contents(run) == before
    (run / "config.yaml").unlink()  # a run is known by all that it leaves
    assert fit() == 1 and not (run / "config.yaml").exists()
    assert fit(f"--ckpt_path={tmp_path / 'other/checkpoints/last.ckpt'}") == 1
    assert "is no checkpoint of it" in capsys.readouterr().err
    assert contents(run) == {name: data for name, data in before.items() if name != "config.yaml"}


def evaluate(name, run, folder) -> int:
    """`test`, `validate` or `predict` with a run's last checkpoint, in a folder."""
    options = [f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints/update_00002.ckpt'}"]
    return main([name, *options, f"--trainer.default_root_dir={folder}"])


EVALUATIONS = [("test", "eval/test.json"), ("test", "eval/test.jsonl"), ("validate", "eval/validate.json"),
               ("predict", "predictions.jsonl")]  # fmt: skip


@pytest.mark.parametrize(("name", "file"), EVALUATIONS)
def test_an_evaluation_leaves_files_of_others_alone(finished, tmp_path, capsys, name, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    assert evaluate(name, finished, tmp_path) == 1
    assert f"{tmp_path} holds {file}, which `atmanrl {name}` has not made" in capsys.readouterr().err
    assert contents(tmp_path) == {file: b"mine"}


@pytest.mark.parametrize("name", ["test", "validate", "predict"])
def test_an_evaluation_replaces_its_own_files(run, tmp_path, name):
    (tmp_path / "other").mkdir()
    for folder in (tmp_path / "other", run):
        assert evaluate(name, run, folder) == evaluate(name, run, folder) == 0


def test_a_run_that_is_done_says_so(run, fit, capsys):
    assert fit("--ckpt_path=last") == 0
    assert "is done already, after update 2 of 2" in capsys.readouterr().err


def test_a_second_start_is_refused_before_it_writes(fit, tmp_path, capsys):
    with locked(tmp_path / "run", "fit"):
        before = contents(tmp_path / "run")
        assert fit() == 1 and contents(tmp_path / "run") == before
    assert "another `atmanrl fit` is at work in" in capsys.readouterr().err
    assert fit() == 0


@pytest.mark.parametrize("wrong", ["--model.policy.path=/no/such/model", "--data.group_size=1000000"])
def test_a_failed_start_leaves_no_run_behind(fit, tmp_path, monkeypatch, capsys, wrong):
    def no_memory(self, *args):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    if "group_size" in wrong:  # the first update fails
        monkeypatch.setattr("atmanrl.grpo.GRPOModule.training_step", no_memory)
    assert fit(wrong.replace("1000000", "2")) == 1
    assert not (tmp_path / "run/config.yaml").exists()
    monkeypatch.undo()
    assert fit() == 0


def test_a_failed_restart_leaves_the_record_of_what_ran(run, fit):
    before = contents(run)
    assert fit("--ckpt_path=last", "--trainer.max_steps=4", "--model.policy.path=/no/such/model") == 1
    assert contents(run) == before


def test_a_policy_folder_of_the_users_is_refused_before_training(fit, tmp_path, capsys):
    (tmp_path / "run/policy").mkdir(parents=True)
    (tmp_path / "run/policy/mine").write_text("mine")
    assert fit() == 1
    assert fit("--ckpt_path=last") == 1
    assert "policy was not made by `atmanrl fit`" in capsys.readouterr().err
    assert contents(tmp_path / "run/policy") == {"mine": b"mine"}


def test_a_users_files_beside_the_rollouts_stay(run, fit):
    mine = ["rollouts/update_00009.notes", "rollouts/update_00009.jsonl.bak", "checkpoints/a.part", "policy.part"]
    for name in mine:
        (run / name).write_text("mine")
    (run / "rollouts/update_00009.jsonl").write_text("of an update that is written again")
    assert fit("--ckpt_path=last", "--trainer.max_steps=3") == 0
    assert all((run / name).read_text() == "mine" for name in mine)
    assert not (run / "rollouts/update_00009.jsonl").exists()


def test_a_disk_without_links(fit, tmp_path, monkeypatch, tiny_folder):
    """exFAT and SMB: no `last.ckpt`, and nothing that misses it."""

    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "symlink", refuse)
    run = tmp_path / "run"
    assert fit() == 0
    assert os.listdir(run / "checkpoints") == ["update_00002.ckpt"]
    last = run / "checkpoints/last.ckpt"
    assert checkpoint_files.checkpoint_path(last) == run / "checkpoints/update_00002.ckpt"
    assert main(["export", "--ckpt", str(last), "--out", str(tmp_path / "exported")]) == 0
    assert fit("--ckpt_path=last", "--trainer.max_steps=3") == 0
    assert os.listdir(run / "rollouts") and (run / "rollouts/update_00003.jsonl").exists()


@pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_takes_nothing(fit, tmp_path, monkeypatch, capsys, error):
    def refuse(self, *_, **__):
        raise OSError(error, os.strerror(error), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fit() == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "run") in said and said.count("\n") == 1 and "Traceback" not in said


def test_home_is_the_home_folder(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert fit("--trainer.default_root_dir=~/x") == 0
    assert (tmp_path / "home/x/config.yaml").exists() and not (tmp_path / "~").exists()


def test_ctrl_c_saves_and_ends_with_status_130(fit, tmp_path, capfd):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        while not (tmp_path / "run/rollouts/update_00002.jsonl").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert fit("--trainer.max_steps=400") == 130
    signal.signal(signal.SIGINT, handler)
    said = capfd.readouterr().err
    assert "SIGINT: saved after update" in said and "--ckpt_path=last goes on" in said
    assert (tmp_path / "run/checkpoints/last.ckpt").exists()


@pytest.mark.parametrize(
    "place", ["atmanrl.commands.run_cli.RunCLI.instantiate_classes", "atmanrl.grpo.GRPOModule.configure_model"]
)
def test_ctrl_c_before_training_is_one_line(fit, monkeypatch, capsys, place):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)
    handler = signal.getsignal(signal.SIGINT)
    assert fit() == 130
    signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
    assert capsys.readouterr().err == "atmanrl: interrupted.\n"


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda text: text + "1,2,3,4,5,6,7,8" * 100 + "\n", "row 4: not a row of this log"),
        (lambda text: text.replace("\n0", "\nnought").replace(",0,", ",nought,"), "row 2: not a row of this log"),
        (lambda text: "mine\n1\n", "row 2: not a row of this log"),
        (lambda text: text + "x" * 200_000 + "\n", "is no CSV file that can be read (field larger than field limit"),
    ],
    ids=["columns", "step", "another's", "long"],
)
def test_a_log_edited_by_hand_is_refused_and_kept(run, fit, capsys, harm, says):
    log = run / "metrics.csv"
    with log.open(newline="") as file:
        log.write_text(harm(file.read().replace("\r\n", "\n")))
    before = contents(run)
    capsys.readouterr()
    assert fit("--ckpt_path=last", "--trainer.max_steps=3") == 1
    said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("atmanrl: note: ")]
    assert len(said) == 1 and said[0].startswith(f"atmanrl: error: {log}") and says in said[0], said
    assert contents(run) == before
