"""A signal while an update samples or probes ends the run there: the updates before it are saved and go on exactly."""

import os
import signal

import pytest
import torch
from conftest import ROOT

from atmanrl import contention, pulse
from atmanrl.__main__ import main

SMALL = [
    "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=16", "--data.val_problems=2",
    "--data.eval_samples=1", "--data.task.train_size=20", "--data.task.test_size=2", "--checkpoint.every_n_updates=50",
    "--model.rewards.saliency.probe.solver.steps=2", "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false",
]  # fmt: skip


def fit(folder, policy, *more):
    config = ["--config", str(ROOT / "configs/laptop.yaml"), f"--model.policy.path={policy}"]
    return main(["fit", *config, f"--trainer.default_root_dir={folder}", "--trainer.max_steps=4", *SMALL, *more])


class Signals:
    """Sends a signal in the midst of an update, at the first beat of some work."""

    def __init__(self, number, work, update):
        self.number, self.work, self.update, self.updates = number, work, update, 0

    def __call__(self, work, done, total):
        self.updates += work == "sampling" and done == 0
        if work == self.work and self.updates == self.update:
            self.update = -1
            os.kill(os.getpid(), self.number)


@pytest.fixture
def send():
    sent, before = [], signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it

    def listen(*args):
        sent.append(Signals(*args))
        pulse.listen(sent[-1])

    yield listen
    for each in sent:
        pulse.stop_listening(each)
    signal.signal(signal.SIGINT, before)


def weights(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_folder):
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert fit(folder, tiny_folder) == 0
    return folder


@pytest.mark.parametrize(
    ("number", "work", "status", "saved"),
    [
        (signal.SIGTERM, "sampling", 75, 2),
        (signal.SIGINT, "sampling", 130, 2),
        (signal.SIGTERM, "learning", 75, 3),  # not half an update: it is finished first
    ],
)
def test_the_third_update_is_interrupted(tmp_path, tiny_folder, whole, send, capsys, number, work, status, saved):
    send(number, work, 3)
    contention.watch()  # which listens until the process ends
    listeners = list(pulse._listeners)
    assert fit(tmp_path / "run", tiny_folder) == status
    assert f"saved after update {saved}; the same command with --ckpt_path=last goes on" in capsys.readouterr().err
    assert weights(tmp_path / "run")["global_step"] == saved and pulse._listeners == listeners
    assert fit(tmp_path / "run", tiny_folder, "--ckpt_path=last") == 0
    for update in range(1, 5):
        name = f"rollouts/update_{update:05d}.jsonl"
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    assert all(
        torch.equal(a, weights(whole)["state_dict"][n]) for n, a in weights(tmp_path / "run")["state_dict"].items()
    )


def test_a_test_that_is_interrupted_is_no_success(tmp_path, tiny_folder, send, capsys):
    send(signal.SIGTERM, "sampling", 1)
    config = [
        "--config",
        str(ROOT / "configs/laptop.yaml"),
        f"--model.policy.path={tiny_folder}",
        "--data.test_problems=2",
    ]
    assert main(["test", *config, f"--trainer.default_root_dir={tmp_path / 'run'}", *SMALL]) == 75
    assert "SIGTERM: interrupted" in capsys.readouterr().err and not (tmp_path / "run/eval/test.json").exists()


def test_in_the_first_update_nothing_is_saved(tmp_path, tiny_folder, send, capsys):
    send(signal.SIGTERM, "sampling", 1)
    assert fit(tmp_path / "run", tiny_folder) == 75
    assert "no update was done yet" in capsys.readouterr().err
    assert not (tmp_path / "run/checkpoints").exists() and not (tmp_path / "run/config.yaml").exists()
    assert fit(tmp_path / "run", tiny_folder, "--trainer.max_steps=1") == 0
