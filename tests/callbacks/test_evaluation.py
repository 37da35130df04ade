"""The vote of an evaluation's samples, by the callback alone."""

import json
from types import SimpleNamespace

import pytest
import torch

from atmanrl.callbacks import EvaluationReport
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import MixtureTask, MultiHop, Problem, WordProblems


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


def test_each_task_of_a_mixture_has_its_own_figures(trainer, module, tmp_path):
    tasks = {"easy": WordProblems(), "hard": MultiHop(), "idle": WordProblems()}
    trainer.datamodule = RolloutDataModule(MixtureTask(tasks), eval_samples=2, top_k=5, stop=["\n\n"])
    report = EvaluationReport()
    report.setup(trainer, module, "test")
    rights = {"easy/1": [True, True], "hard/1": [False, False], "hard/2": [True, False]}
    rollouts = [
        SimpleNamespace(problem=Problem(name, "?", "72"), parts=SimpleNamespace(answer="72" if r else "5"), right=r)
        for name, samples in rights.items()
        for r in samples
    ]
    report.on_test_batch_end(trainer, module, None, RolloutBatch(rollouts[:4], 2), 0)
    report.on_test_batch_end(trainer, module, None, RolloutBatch(rollouts[4:], 2), 1)
    report.on_test_epoch_end(trainer, module)
    report.on_test_end(trainer, module)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert (figures["test/easy/pass_at_1"], figures["test/easy/pass_at_2"]) == (1, 1)
    assert (figures["test/hard/pass_at_1"], figures["test/hard/pass_at_2"]) == (0.25, 0.5)
    written = json.loads((tmp_path / "eval/test.json").read_text())
    assert written["hard/pass_at_1"] == 0.25 and written["idle/pass_at_1"] is None
    assert (written["setting"]["top_k"], written["setting"]["stop"]) == (5, ["\n\n"])
