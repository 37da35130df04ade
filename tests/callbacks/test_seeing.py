"""What a run shows while it goes on: the progress bar, the table of rollouts, the composition of the reasoning."""

import io
import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from rich.console import Console

from atmanrl.callbacks import CompositionCallback, RolloutTable, UpdateProgress
from atmanrl.callbacks.progress import SHOWN
from atmanrl.callbacks.rollout_table import table
from atmanrl.errors import UserError
from atmanrl.rollouts import Completion, Parts, Rollout, RolloutBatch
from atmanrl.tasks import Problem

HOSTILE = "[bold]1 + 2[/] = [/nothing] 3 [link=file:///etc]x ##### 3"


def rollout(i, completion, **rewards):
    parts = Parts(completion, completion, "3", 3)
    made = Rollout(Problem(f"test/{i}", "?", "3"), i, 0, "1 + 2?", [], Completion([], [], True), parts, i == 0)
    made.rewards = rewards
    return made


@pytest.fixture
def batch():
    first, second = rollout(0, HOSTILE, outcome=0.0, saliency=0.25), rollout(1, "so " * 400, outcome=-1.0)
    first.notes, second.rewards["saliency"] = {"parsed": ["3"]}, math.nan
    return RolloutBatch([first, second], 2)


def update_of(rollouts):
    """What a training step returns, as callbacks get it."""
    return {"experience": SimpleNamespace(rollouts=rollouts)}


def trainer(update, *loggers, **figures):
    return SimpleNamespace(
        global_step=update, is_global_zero=True, loggers=list(loggers), callback_metrics=figures,
        estimated_stepping_batches=4,
    )  # fmt: skip


def shown(callback):
    callback.console = Console(width=300, record=True, force_terminal=False, quiet=False)
    return callback.console


def test_the_table_shows_completions_as_they_stand(batch, capsys):
    callback = RolloutTable(every_n_updates=2, characters=60)
    console = shown(callback)
    for update in (1, 2, 3):
        callback.on_train_batch_end(trainer(update), None, update_of(batch.rollouts), batch, 0)
    text = console.export_text()
    assert HOSTILE in text and text.count("rollouts of update") == 1 and "rollouts of update 2" in text
    assert "+0.250" in text and "-1.000" in text and "['3']" in text and "nan" not in text
    assert "so " * 10 + " ... " in text and text.count("so ") < 40
    callback = RolloutTable(every_n_updates=1, rollouts=1)
    console = shown(callback)
    callback.on_train_batch_end(trainer(1), None, update_of(batch.rollouts), batch, 0)
    assert "test/0" in (text := console.export_text()) and "test/1" not in text


def test_many_rewards_leave_room_for_the_texts(batch):
    """On a terminal of 80 characters a completion's words stay whole."""
    batch.rollouts[1].rewards |= {f"reward_{i}": float(i) for i in range(9)}
    callback = RolloutTable(every_n_updates=1)
    callback.console = console = Console(width=80, record=True, force_terminal=False)
    callback.on_train_batch_end(trainer(1), None, update_of(batch.rollouts), batch, 0)
    text = console.export_text()
    assert "completion" in text and "reward_8 +8.000" in text and "so so so so" in text


def test_no_table_unless_it_is_asked_for(batch):
    callback = RolloutTable()
    console = shown(callback)
    callback.on_train_batch_end(trainer(1), None, update_of(batch.rollouts), batch, 0)
    callback.every_n_updates = 1
    callback.on_train_batch_end(trainer(1), None, {}, batch, 0)
    callback.on_train_batch_end(trainer(1), None, None, batch, 0)
    assert not console.export_text()


def test_the_columns_of_the_table(batch):
    columns, rows = table(batch.rollouts)
    assert columns == ["problem", "prompt", "completion", "gold", "right", "outcome", "saliency", "parsed"]
    assert rows[0] == ["test/0", "1 + 2?", HOSTILE, "3", True, 0.0, 0.25, "['3']"]
    assert rows[1][-3:] == [-1.0, None, None]


def test_the_table_in_wandb(batch, tmp_path):
    pytest.importorskip("wandb")
    logged = []
    run = SimpleNamespace(log=logged.append, config={}, define_metric=lambda *_, **__: None)
    callback = RolloutTable(every_n_updates=1, rollouts=1)
    shown(callback)
    loggers = CSVLogger(tmp_path), WandbLogger(experiment=run)
    callback.on_train_batch_end(trainer(5, *loggers), None, update_of(batch.rollouts), batch, 0)
    (entry,) = logged
    assert entry["trainer/global_step"] == 4
    columns, rows = table(batch.rollouts)
    assert entry["completions"].columns == ["update", *columns]
    assert entry["completions"].data == [[5, *row] for row in rows]


@pytest.mark.parametrize("options", [{"every_n_updates": -1}, {"rollouts": 0}, {"characters": 9}])
def test_wrong_table_options(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=rf"rollout_table\.{name} is {value}"):
        RolloutTable(**options)


def test_the_progress_bar_fits_a_narrow_terminal():
    bar = UpdateProgress()
    bar.console = console = Console(width=80, record=True, force_terminal=True, file=io.StringIO())
    run = trainer(1, **{name: torch.tensor(0.5) for name in SHOWN})
    bar.on_train_start(run, None)
    bar.on_train_batch_end(run, None, None, None, 0)
    bar.bar.refresh()
    bar.on_train_end(run, None)
    text = console.export_text()
    assert "train" in text and "1/4" in text and "reward +0.500" in text and "updated 0.5 s" in text and "…" not in text


def test_the_progress_bar_shows_what_a_run_has():
    bar = UpdateProgress()
    console = shown(bar)
    figures = {
        "reward": -0.25, "accuracy": 0.75, "cot/mean_length": 61.4, "kl": 0.0123, "grad_norm": 0.5,
        "time/rollout": 1.25, "time/reward": 0.75, "time/update": 2.0, "unknown": 3.0,
    }  # fmt: skip
    run = trainer(1, **{name: torch.tensor(value) for name, value in figures.items()})
    bar.on_train_start(run, None)
    bar.on_train_batch_end(run, None, None, None, 0)
    bar.on_train_end(run, None)
    text = console.export_text()
    assert "train 1/4  reward -0.250  right 75%  CoT 61  KL 0.0123  grad 0.50  sampled 1.2 s  rewarded 0.8 s  updated 2.0 s"\
        in text  # fmt: skip
    bar = UpdateProgress()
    console = shown(bar)
    bar.disable()
    bar.on_train_start(run, None)
    bar.on_train_batch_end(run, None, None, None, 0)
    assert not console.export_text()


def test_composition_is_counted_where_processes_meet(batch):
    callback, logged = CompositionCallback(), {}
    module = SimpleNamespace(device=torch.device("meta"), log_dict=logged.update)
    moved = []
    for metric in (callback.training, callback.evaluation):
        metric.to = lambda device, metric=metric: moved.append(device) or metric
    callback.on_train_batch_end(None, module, None, batch, 0)
    callback.on_validation_batch_end(None, module, None, batch, 0)
    callback.on_validation_epoch_end(None, module)
    assert moved == [module.device] * 2
    assert logged["cot/numbers_pct"] == logged["val/numbers_pct"] > 0
