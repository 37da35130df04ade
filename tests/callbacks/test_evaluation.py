"""What is written of an evaluation, by the callbacks alone."""

import json
from types import SimpleNamespace

import pytest
import torch

from atmanrl.callbacks import EvaluationReport, MetricsCallback
from atmanrl.metrics.composition import TokenComposition
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import Problem, WordProblems


def batch(*groups):
    """Rollouts whose answers are given, in groups of equal size; every gold answer is 72."""
    rollouts = [
        SimpleNamespace(
            problem=Problem(str(q), "?", "72"), parts=SimpleNamespace(answer=answer, cot="3 + 4", cot_length=3),
            correct=answer == "72", completion=SimpleNamespace(finished=True), metrics={},
        )
        for q, group in enumerate(groups)
        for answer in group
    ]  # fmt: skip
    return RolloutBatch(rollouts, group_size=len(groups[0]))


@pytest.fixture
def trainer(tmp_path):
    data = RolloutDataModule(WordProblems(train_size=1, test_size=1), eval_samples=4, top_k=5, stop=["\n\n"])
    return SimpleNamespace(
        datamodule=data, default_root_dir=str(tmp_path), is_global_zero=True, callbacks=[], global_step=3,
        ckpt_path=None, callback_metrics={}, sanity_checking=False,
    )  # fmt: skip


@pytest.fixture
def module(trainer):
    return SimpleNamespace(device=torch.device("cpu"), log_dict=trainer.callback_metrics.update)


def test_values_columns_and_setting_of_all_test_problems_are_written(trainer, module, tmp_path):
    metrics, report = MetricsCallback(MetricsCallback().metrics | {"words": TokenComposition()}), EvaluationReport()
    trainer.callbacks = [report, metrics]
    metrics.setup(trainer, module, "test")
    metrics.on_test_batch_end(trainer, module, None, batch(["72", "$72.00", "5", "6"], ["72", "5", "5.0", None]), 0)
    metrics.on_test_batch_end(trainer, module, None, batch(["72", "72", "7", "7 apples"]), 1)
    metrics.on_test_epoch_end(trainer, module)
    report.on_test_end(trainer, module)
    written = json.loads((tmp_path / "eval/test.json").read_text())
    assert written["majority_at_4"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert (written["pass_at_1"], written["tokens_per_cot"], written["finished"]) == (pytest.approx(1 / 3), 3, 1)
    assert written["setting"]["task"] == "WordProblems" and written["setting"]["tagger"] == "lexical rules"
    assert written["conditions"]["tagger"]["must_agree"] and written["conditions"]["task"]["plural"] == "tasks"
    assert (written["setting"]["top_k"], written["setting"]["stop"]) == (5, ["\n\n"])
    assert list(written["columns"]) == [
        "tokens_per_cot", "pass_at_1", "pass_at_4", "majority_at_4", "numbers_pct", "stop_words_pct", "symbols_pct",
    ]  # fmt: skip
    assert written["columns"]["pass_at_4"] == {
        "title": "pass@4 %",
        "higher_is_better": True,
        "kind": "points",
        "unit": "",
    }


def test_an_evaluation_without_metrics_has_no_columns(trainer, module, tmp_path):
    trainer.callback_metrics["test/rewards/outcome/mean"] = torch.tensor(float("nan"))
    EvaluationReport().on_test_end(trainer, module)
    written = json.loads((tmp_path / "eval/test.json").read_text())
    assert written["rewards/outcome/mean"] is None and written["columns"] == {} and "tagger" not in written["setting"]
