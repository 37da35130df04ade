"""Metrics in training and evaluation, by their callback alone."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from batches import answered, judged, reasoned

from atmanrl.callbacks import MetricsCallback
from atmanrl.distributed.collectives import serving
from atmanrl.errors import UserError
from atmanrl.metrics.base import RolloutMetric
from atmanrl.metrics.columns import Column
from atmanrl.metrics.composition import TokenComposition
from atmanrl.metrics.endings import CotLength
from atmanrl.metrics.majority import MajorityAtK
from atmanrl.metrics.ratio import RatioMetric
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks import WordProblems


class Answers(RolloutMetric):
    """How many answers there are: a user's metric."""

    columns = {"answers": Column("answers", True)}

    def __init__(self, stages=None):
        super().__init__(stages)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, batch, policy=None):
        self.count += sum(rollout.parts.answer is not None for rollout in batch.rollouts)

    def compute(self):
        return {"answers": self.count, "half": self.count / 2}


@pytest.fixture
def logged():
    return {}


@pytest.fixture
def module(logged):
    return SimpleNamespace(device=torch.device("cpu"), log_dict=logged.update)


def ready(module, samples=4, **metrics):
    callback = MetricsCallback(metrics or None)
    data = RolloutDataModule(WordProblems(train_size=1, test_size=1), eval_samples=samples)
    callback.setup(SimpleNamespace(datamodule=data), module, "fit")
    return callback


def test_a_metric_runs_in_its_stages_and_under_their_names(module, logged):
    everywhere, elsewhere = Answers(["training", "validation", "test"]), CotLength()
    callback = ready(module, answers=everywhere, length=elsewhere, nothing=None)
    callback.on_train_batch_end(None, module, None, answered(["72", None]), 0)
    assert logged == {"train/answers": 1, "train/half": 0.5}
    callback.on_validation_batch_end(None, module, None, answered(["72", "5"]), 0)
    callback.on_validation_batch_end(None, module, None, answered(["72", None]), 1)
    callback.on_validation_epoch_end(None, module)
    assert (logged["val/answers"], logged["val/tokens_per_cot"]) == (3, 0)
    callback.on_test_batch_end(None, module, None, answered([None, None]), 0)
    callback.on_test_epoch_end(None, module)
    assert logged["test/answers"] == 0
    assert list(callback.columns("training")) == ["answers"]
    assert list(callback.columns("test")) == ["answers", "tokens_per_cot"]


def test_each_update_and_each_evaluation_begins_anew(module, logged):
    callback = ready(module, answers=Answers(["training", "validation"]))
    for answers, expected in (["72", "5"], 2), (["72", None], 1):
        callback.on_train_batch_end(None, module, None, answered(answers), 0)
        callback.on_validation_batch_end(None, module, None, answered(answers), 0)
        callback.on_validation_epoch_end(None, module)
        assert logged["train/answers"] == logged["val/answers"] == expected


def test_an_evaluation_notes_at_each_rollout_what_it_adds(module):
    """A rollout's own terms stand at it, those of a problem at its first sample; a metric without terms adds nothing."""
    metrics = {"length": CotLength(), "votes": MajorityAtK(), "composition": TokenComposition(), "own": Answers()}
    callback = ready(module, samples=2, **metrics)
    batch = answered(["72", "5"], ["72", "72"])
    for length, each in enumerate(batch.rollouts):
        each.parts.cot, each.parts.cot_length = "3 + 4 is 7"[: 2 + 4 * length], length
    callback.on_test_batch_end(None, module, None, batch, 0)
    noted = [each.metrics for each in batch.rollouts]
    assert [each["tokens_per_cot"] for each in noted] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert [each.get("majority_at_2") for each in noted] == [(0.5, 1), None, (1, 1), None]
    assert [each["numbers_pct"] for each in noted] == [(100, 1), (200, 3), (300, 5), (300, 5)]
    assert all("answers" not in each for each in noted)


def test_training_leaves_rollouts_as_they_are(module):
    callback, batch = ready(module, composition=TokenComposition()), reasoned("3 + 4")
    callback.on_train_batch_end(None, module, None, batch, 0)
    assert batch.rollouts[0].metrics == {}


def test_composition_is_counted_where_processes_meet(module, logged):
    callback, moved = ready(module, composition=TokenComposition()), []
    module.device = torch.device("meta")
    for running in callback._running.values():
        metric = running["composition"]
        metric.to = lambda device, metric=metric: moved.append(device) or metric
    callback.on_train_batch_end(None, module, None, reasoned("3 + 4", "so it is"), 0)
    callback.on_validation_batch_end(None, module, None, reasoned("3 + 4", "so it is"), 0)
    callback.on_validation_epoch_end(None, module)
    assert moved == [module.device] * 2
    assert logged["cot/numbers_pct"] == logged["val/numbers_pct"] > 0


def test_the_default_metrics_vote_and_pass_and_count_the_samples_of_their_stage(module, logged):
    callback = ready(module, samples=2)
    callback.on_test_batch_end(None, module, None, answered(["72", "5"], ["72", "72"]), 0)
    callback.on_test_epoch_end(None, module)
    assert logged == {
        "test/tokens_per_cot": 0, "test/pass_at_1": 0.75, "test/pass_at_2": 1, "test/majority_at_2": 0.75,
        "test/finished": 1,
    }  # fmt: skip


def test_other_batches_and_other_data_have_no_metrics(module, logged):
    callback = ready(module)
    callback.on_test_batch_end(None, module, None, ["something else"], 0)
    callback.on_train_batch_end(None, module, None, {"input_ids": 1}, 0)
    callback.on_test_epoch_end(None, module)
    callback.setup(SimpleNamespace(datamodule=None), module, "test")
    callback.on_test_batch_end(None, module, None, judged([1]), 0)
    callback.on_test_epoch_end(None, module)
    assert not logged


class Perplexity(RolloutMetric):
    """Runs the policy itself."""

    uses_policy = True

    def __init__(self):
        super().__init__()
        self.add_state("loss", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, batch, policy=None):
        loss = policy.model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss
        assert not loss.requires_grad
        self.loss += loss

    def compute(self):
        return {"loss": self.loss}


def test_a_metric_that_uses_the_policy_gets_it_and_others_do_not(module, logged, tiny_policy):
    module.policy = tiny_policy
    callback = ready(module, loss=Perplexity(), answers=Answers())
    callback.on_test_batch_end(None, module, None, answered(["72"]), 0)
    callback.on_test_epoch_end(None, module)
    ids = torch.tensor([[5, 6, 7]])
    assert logged["test/loss"] == pytest.approx(tiny_policy.model(input_ids=ids, labels=ids).loss.item())


class Wrong(Answers):
    """Computes whatever a test wants."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def compute(self):
        return self.returned


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (3.0, "metrics.mine (Wrong).compute() returned a float"),
        ({"answers": torch.zeros(2)}, "answers of shape [2]; return a scalar"),
        ({"other": 1.0}, "returned no answers, for which the metric has a column"),
        ({"answers": 1, "columns": 2}, "columns of shape"),
    ],
)
def test_what_is_no_value_is_told_by_name(module, returned, sentence):
    callback = ready(module, mine=Wrong(returned))
    callback.on_test_batch_end(None, module, None, answered(["72"]), 0)
    with pytest.raises(UserError, match=re.escape(sentence)):
        callback.on_test_epoch_end(None, module)


class Contributes(RatioMetric):
    """A user's ratio, with what it is handed."""

    columns = {"x": Column("x")}

    def __init__(self, contributions):
        super().__init__()
        self.handed = contributions

    def contributions(self, batch, policy=None):
        return self.handed


@pytest.mark.parametrize(
    "handed", [{}, {"x": torch.ones(3)}, {"x": torch.ones(4, 1)}, {"x": (torch.ones(4), torch.ones(()))}]
)
def test_contributions_of_no_rollout_are_told_by_name(module, handed):
    callback = ready(module, mine=Contributes(handed))
    with pytest.raises(
        UserError, match=r"Contributes.contributions\(\) must return x, with a number for each of 4"
    ) as caught:
        callback.on_test_batch_end(None, module, None, answered(["72", "5"], ["72", "72"]), 0)
    assert caught.value.__notes__ == ["This happened in metrics.mine, a Contributes."]


def test_truth_values_are_counted(module, logged):
    callback = ready(module, mine=Contributes({"x": torch.tensor([True, False])}))
    batch = answered(["72", "5"])
    callback.on_test_batch_end(None, module, None, batch, 0)
    callback.on_test_epoch_end(None, module)
    assert logged == {"test/x": 0.5} and [type(n) for r in batch.rollouts for n in r.metrics["x"]] == [int] * 4


def test_counts_are_exact_where_float32_is_not():
    """16,777,217 is no float32, and no sum of ones in float32 gets beyond 16,777,216."""
    metric = Contributes({"x": (torch.tensor([2**24, 1]), torch.tensor([1, 0]))})
    metric.update(answered(["72", "5"]))
    assert metric.counts.tolist() == [[2**24 + 1, 1]]


def test_two_metrics_of_one_column_are_refused_before_anything_is_sampled(module):
    with pytest.raises(UserError, match=r"metrics\.one and metrics\.two both have answers"):
        ready(module, one=Answers(), two=Answers())


def test_a_stage_that_does_not_exist():
    with pytest.raises(UserError, match=r"Answers.stages has 'fit'; give some of training, validation, test"):
        Answers(["fit"])


def test_an_error_says_which_metric_raised_it(module):
    callback = ready(module, mine=Answers())
    with pytest.raises(AttributeError) as caught:
        callback.on_test_batch_end(None, module, None, RolloutBatch([SimpleNamespace()], 1), 0)
    assert caught.value.__notes__ == ["This happened in metrics.mine, a Answers."]


def test_the_mean_length_is_rounded_once():
    metric = CotLength()
    metric.update(reasoned("a b", "a", "a"))
    assert metric.compute()["tokens_per_cot"] == torch.tensor(4 / 3)
    metric.reset()
    metric.update(RolloutBatch([], 1))
    assert math.isnan(metric.compute()["tokens_per_cot"])


def test_processes_meet_before_counts_are_added_up():
    """One that is done would else wait in a collective for one that needs its help to gather weights."""
    served = []
    with serving(lambda: served.append(True)):
        MetricsCallback()._log("validation", None)
    assert served == [True]
