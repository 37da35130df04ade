"""The vote of an evaluation's samples, by the callback alone."""

import json
from types import SimpleNamespace

import pytest
import torch

from atmanrl.callbacks import EvaluationReport
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import Problem, WordProblems


def batch(*groups):
    """Rollouts whose answers are given, in groups of equal size; every gold answer is 72."""
    rollouts = [
        SimpleNamespace(problem=Problem(str(q), "?", "72"), parts=SimpleNamespace(answer=answer))
        for q, group in enumerate(groups)
        for answer in group
    ]
    return RolloutBatch(rollouts, group_size=len(groups[0]))


@pytest.fixture
def trainer(tmp_path):
    data = RolloutDataModule(WordProblems(train_size=1, test_size=1), eval_samples=4)
    return SimpleNamespace(
        datamodule=data, default_root_dir=str(tmp_path), is_global_zero=True, callbacks=[], global_step=3,
        ckpt_path=None, callback_metrics={}, sanity_checking=False,
    )  # fmt: skip


@pytest.fixture
def module(trainer):
    return SimpleNamespace(device=torch.device("cpu"), log_dict=trainer.callback_metrics.update)


def test_the_vote_of_all_test_problems_is_logged_and_written(trainer, module, tmp_path):
    report = EvaluationReport()
    report.setup(trainer, module, "test")
    report.on_test_batch_end(trainer, module, None, batch(["72", "$72.00", "5", "6"], ["72", "5", "5.0", None]), 0)
    report.on_test_batch_end(trainer, module, None, batch(["72", "72", "7", "7 apples"]), 1)
    report.on_test_epoch_end(trainer, module)
    report.on_test_end(trainer, module)
    written = json.loads((tmp_path / "eval/test.json").read_text())
    assert written["majority_at_4"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert written["setting"]["task"] == "WordProblems" and written["setting"]["tagger"] == "lexical rules"


def test_an_evaluation_begins_with_no_votes(trainer, module):
    report = EvaluationReport()
    for answers, expected in ((["72"] * 4, 1), (["5"] * 4, 0)):
        report.setup(trainer, module, "fit")
        report.on_validation_batch_end(trainer, module, None, batch(answers), 0)
        report.on_validation_epoch_end(trainer, module)
        assert trainer.callback_metrics["val/majority_at_4"] == expected


def test_stored_traces_and_other_batches_have_no_vote(trainer, module):
    report = EvaluationReport()
    report.setup(trainer, module, "test")
    report.on_test_batch_end(trainer, module, None, ["something else"], 0)
    trainer.datamodule = RolloutDataModule(traces="traces.jsonl")
    report.on_test_epoch_end(trainer, module)
    report.setup(trainer, module, "predict")
    report.on_test_batch_end(trainer, module, None, batch(["72"] * 4), 0)
    report.on_test_epoch_end(trainer, module)
    assert not trainer.callback_metrics
