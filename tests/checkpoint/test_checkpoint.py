"""Checkpoints of a small model: when they are written, what is done with damaged ones, signals, a full disk."""

import csv
import errno
import os
import signal
from contextlib import ExitStack

import pytest
import torch
from disk import full_disk
from lightning.pytorch.plugins.environments import SLURMEnvironment
from small_model import Small, train

from atmanrl.callbacks import RunCheckpoint
from atmanrl.callbacks import checkpoint as callback
from atmanrl.checkpoint import files
from atmanrl.checkpoint.files import damage, newest_whole
from atmanrl.checkpoint.reading import CheckpointError, CheckpointFile, check_fits
from atmanrl.errors import Interrupted, UserError
from atmanrl.io.files import temporary_path


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def names(folder):
    return sorted(p.name for p in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight updates without interruption, over the end of an epoch."""
    folder = tmp_path_factory.mktemp("whole")
    module = Small()
    torch.manual_seed(0)
    torch.nn.init.normal_(module.layer.weight)
    start = {k: v.clone() for k, v in module.state_dict().items()}
    train(folder, module, 8)
    return folder, start, module


def begun(whole, **options):
    module = Small(**options)
    module.load_state_dict(whole[1])
    return module


def test_all_of_an_update_is_written_before_its_checkpoint(whole, tmp_path, monkeypatch):
    found = []

    def save(self, trainer):
        found.append((trainer.global_step, [sorted(row) for row in rows(tmp_path)][-2:]))

    monkeypatch.setattr(RunCheckpoint, "save", save)
    train(tmp_path, begun(whole), 4)
    assert [step for step, _ in found] == [2, 4, 4]  # `save` of the test does not note what was saved
    for _, last in found:
        assert "loss" in last[0] and "val/loss" in last[1]


@pytest.mark.parametrize("kept", [2, 4, 6])
def test_a_run_goes_on_from_any_checkpoint_bit_for_bit(whole, tmp_path, kept):
    """Also from the one at an epoch's end, and with a random state that is drawn on in every step."""
    folder, _, module = whole
    again = Small()
    train(tmp_path, again, 8, ckpt_path=str(folder / f"checkpoints/update_{kept:05d}.ckpt"))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in module.state_dict().items())
    assert rows(tmp_path) == [row for row in rows(folder) if int(row["step"]) >= kept]


def test_last_leads_to_the_newest_and_older_ones_go(whole, tmp_path):
    train(tmp_path, begun(whole), 7, checkpoint=RunCheckpoint(every_n_updates=2, keep=2))
    assert names(tmp_path) == ["last.ckpt", "update_00006.ckpt", "update_00007.ckpt"]
    assert os.readlink(tmp_path / "checkpoints/last.ckpt") == "update_00007.ckpt"


@pytest.mark.parametrize("options", [{"keep": 1}, {"keep": 0}, {"every_n_updates": 0}])
def test_options_that_cannot_be(options):
    with pytest.raises(UserError, match="checkpoint."):
        RunCheckpoint(**options)


def copied(whole, folder):
    (folder / "checkpoints").mkdir()
    for update in (2, 4):
        name = f"checkpoints/update_{update:05d}.ckpt"
        (folder / name).write_bytes((whole[0] / name).read_bytes())
    return folder / "checkpoints"


def shorten(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def hollow(path):
    """As long as it was, with other contents here and there: a copy or a disk that lost blocks."""
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 4, 3 * len(data) // 4, 16):
        data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [shorten, hollow, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_passed_over_and_named(whole, tmp_path, capsys, harm):
    folder = copied(whole, tmp_path)
    assert newest_whole(folder) == folder / "update_00004.ckpt"
    harm(folder / "update_00004.ckpt")
    assert newest_whole(folder) == folder / "update_00002.ckpt"
    assert "update_00004.ckpt is damaged" in capsys.readouterr().err
    harm(folder / "update_00002.ckpt")
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        newest_whole(folder)


def test_no_checkpoint_is_no_error(tmp_path):
    assert newest_whole(tmp_path / "checkpoints") is None


def test_a_sharded_checkpoint_is_judged_by_its_manifest(tmp_path):
    folder = tmp_path / "update_00002.ckpt"
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(bytes(100))
    assert "manifest.json cannot be read" in damage(folder)
    files.write_manifest(folder)
    assert damage(folder) is None
    (folder / "__0_0.distcp").write_bytes(bytes(60))
    assert damage(folder) == "its file __0_0.distcp has 60 bytes instead of 100"
    (folder / "__0_0.distcp").unlink()
    assert damage(folder) == "its file __0_0.distcp is missing"


def test_what_lies_beyond_the_start_is_set_aside(whole, tmp_path, capsys):
    folder = copied(whole, tmp_path)
    temporary_path(folder / "update_00006.ckpt").write_bytes(b"torn")
    hollow(folder / "update_00004.ckpt")
    train(tmp_path, Small(), 4, ckpt_path=str(newest_whole(folder)))
    assert names(tmp_path) == ["last.ckpt", "update_00002.ckpt", "update_00004.ckpt", "update_00004.ckpt.stale"]
    assert damage(folder / "update_00004.ckpt") is None
    assert "lies beyond update 2" in capsys.readouterr().err


def test_checkpoints_are_set_aside_before_their_log_goes(whole, tmp_path, monkeypatch):
    """Else a run killed in between would go on from a checkpoint without the log that leads to it."""
    folder = copied(whole, tmp_path)
    found = []
    monkeypatch.setattr(callback, "drop_updates_beyond", lambda *_: found.append(names(tmp_path)))
    train(tmp_path, Small(), 3, ckpt_path=str(folder / "update_00002.ckpt"))
    assert found == [["last.ckpt", "update_00002.ckpt", "update_00004.ckpt.stale"]]


def test_a_full_disk_leaves_the_last_good_checkpoint(whole, tmp_path):
    wanted = pytest.raises(CheckpointError, match=r"update_00004.ckpt: .*update_00002.ckpt is the last good one")
    with wanted, ExitStack() as stack:  # which ends with the run: pytest's own report may go to a file, too
        train(tmp_path, begun(whole, at=3, does=lambda: stack.enter_context(full_disk())), 8)
    assert names(tmp_path) == ["last.ckpt", "update_00002.ckpt"]
    assert newest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints/update_00002.ckpt"


def test_a_full_disk_at_the_first_checkpoint(whole, tmp_path, monkeypatch):
    def save(checkpoint, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(CheckpointError, match=r"No space left on device. Make room"):
        train(tmp_path, begun(whole), 8)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (Small(width=5), r"is of another model \(layer.weight has shape \[3, 4\] instead of \[3, 5\]\)"),
        (type("Other", (Small,), {})(), "is a checkpoint of Small, this run trains Other"),
    ],
)
def test_a_checkpoint_of_another_model(whole, tmp_path, module, sentence):
    path = whole[0] / "checkpoints/update_00002.ckpt"
    with pytest.raises(CheckpointError, match=sentence) as error:
        train(tmp_path, module, 4, ckpt_path=str(path), data=torch.randn(6, module.layer.in_features))
    assert str(path) in str(error.value) and "--model.policy.path" in str(error.value)


def test_a_checkpoint_of_another_optimizer(whole, tmp_path):
    module = Small()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.01)
    with pytest.raises(CheckpointError, match=r"model.optimizer is 'SGD' and was 'AdamW'"):
        train(tmp_path, module, 4, ckpt_path=str(whole[0] / "checkpoints/update_00002.ckpt"))


def test_keys_that_only_one_model_has():
    module = Small()
    state = module.state_dict()
    less = {"state_dict": {"layer.weight": state["layer.weight"]}}
    with pytest.raises(CheckpointError, match="layer.bias is missing"):
        check_fits("x.ckpt", less, module)
    with pytest.raises(CheckpointError, match="lora_A is unknown"):
        check_fits("x.ckpt", {"state_dict": {**state, "lora_A": torch.ones(1)}}, module)


def test_what_is_no_checkpoint_of_a_run():
    with pytest.raises(CheckpointError, match="x.ckpt is no checkpoint of a run: it holds no state_dict"):
        check_fits("x.ckpt", {"epoch": 3}, Small())


def test_what_is_no_checkpoint_of_one_file(tmp_path):
    (tmp_path / "slices.ckpt").mkdir()
    with pytest.raises(CheckpointError, match=r"is a sharded checkpoint.*atmanrl export --ckpt"):
        CheckpointFile(lambda *_: None).load_checkpoint(tmp_path / "slices.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match=r"it holds a list"):
        CheckpointFile(lambda *_: None).load_checkpoint(tmp_path / "list.ckpt")


def test_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="x.ckpt cannot be read"):
        CheckpointFile(lambda *_: None).load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("slurm", [False, True])
def test_a_signal_ends_the_run_after_its_update(whole, tmp_path, monkeypatch, number, status, slurm):
    """With SLURM, Lightning would save at once and call `scontrol requeue`."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    for name, value in {"JOB_NAME": "run", "JOB_ID": "1", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    plugins = [SLURMEnvironment(auto_requeue=True)] if slurm else None
    does = lambda: os.kill(os.getpid(), number)  # noqa: E731
    with pytest.raises(Interrupted, match=rf"{number.name}: saved after update 5; .*--ckpt_path=last") as end:
        train(tmp_path, begun(whole, at=4, does=does), 8, plugins=plugins)
    signal.signal(signal.SIGINT, handler)
    assert names(tmp_path)[-1] == "update_00005.ckpt" and end.value.status == status
    assert not list(tmp_path.glob("hpc_ckpt*"))
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before
    again = Small()
    train(tmp_path, again, 8, ckpt_path=str(newest_whole(tmp_path / "checkpoints")))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole[2].state_dict().items())
    assert rows(tmp_path) == rows(whole[0])
