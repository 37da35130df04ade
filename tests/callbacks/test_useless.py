"""An update that teaches nothing is said at once, with what to change, and once for each kind."""

from types import SimpleNamespace

import pytest

from atmanrl.callbacks import UselessUpdates
from atmanrl.rollouts import Completion, Parts, Rollout, RolloutBatch
from atmanrl.tasks import Problem


def rollout(finished=True, answer="3", correct=True):
    parts = Parts("1 + 2 = 3", "1 + 2 = 3", answer, 3)
    completion = Completion([7, 8, 9], [-0.1] * 3, finished)
    return Rollout(Problem("test/0", "?", "3"), 0, 0, "1 + 2?", [1], completion, parts, correct)


def after(callback, rollouts, **metrics):
    trainer = SimpleNamespace(callback_metrics=metrics)
    outputs = {"experience": SimpleNamespace(rollouts=rollouts, batch=RolloutBatch(rollouts, 2))}
    callback.on_train_batch_end(trainer, None, outputs, None, 0)


@pytest.mark.parametrize(
    ("rollouts", "metrics", "says"),
    [
        ([rollout(finished=False, answer=None)] * 4, {}, "all 4 completions were cut off at data.max_new_tokens=3"),
        ([rollout(answer=None)] * 4, {}, "none of 4 completions has an answer, since none holds '#####'"),
        (
            [rollout()] * 4,
            {"frac_reward_zero_std": 1.0, "grad_norm": 0.0},
            "none of the 2 groups do rewards differ (4 of 4",
        ),
        ([rollout(correct=False)] * 4, {"frac_reward_zero_std": 1.0}, "Take easier problems"),
        ([rollout()] * 4, {"frac_reward_zero_std": 0.5, "grad_norm": 0.0}, "gradient is 0"),
    ],
)
def test_a_useless_update(rollouts, metrics, says, capsys):
    callback = UselessUpdates()
    after(callback, rollouts, **metrics)
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    after(callback, rollouts, **metrics)
    assert capsys.readouterr().err == ""


def test_an_update_of_use_is_not_commented_on(capsys):
    mixed = [rollout(), rollout(finished=False, answer=None, correct=False)] * 2
    after(UselessUpdates(), mixed, frac_reward_zero_std=0.5, grad_norm=0.1)
    assert capsys.readouterr().err == ""


def test_an_evaluation_without_any_answer(capsys):
    UselessUpdates().on_test_batch_end(None, None, None, RolloutBatch([rollout(answer=None)] * 2, 2), 0)
    assert "data.delimiter" in capsys.readouterr().err
