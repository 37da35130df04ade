"""What one update learns from: all processes' rollouts, made once; and what a loss is given of it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from atmanrl.distributed import Processes
from atmanrl.errors import UserError
from atmanrl.grpo import Experience, Extreme, Loss, LossInputs, LossOutput, MinibatchCounts, experience
from atmanrl.grpo.loss import evaluate
from atmanrl.grpo.scoring import Scored
from atmanrl.grpo.step_metrics import LossPart, OptimizerStep, step_metrics
from atmanrl.grpo.update import loss_inputs
from atmanrl.rewards import Scores
from atmanrl.rollouts import Completion, RolloutBatch


def rollout(length: int, finished: bool = True) -> SimpleNamespace:
    return SimpleNamespace(prompt_ids=[1, 2], completion=Completion([5] * length, [-1.0] * length, finished))


def of_process(rank: int) -> tuple[RolloutBatch, Scores, list[torch.Tensor]]:
    batch = RolloutBatch([rollout(1 + rank), rollout(3)], 2, seconds=1.0 + rank, metrics={"resampled": float(rank)})
    scores = Scores(
        {"luck": torch.tensor([1.0, 3.0 + rank])}, torch.tensor([1.0, 3.0 + rank]), {"luck/mean": rank + 0.5}
    )
    return batch, scores, [torch.full((1 + rank,), -1.0), torch.full((3,), -2.0)]


def exchanged(rank: int, monkeypatch) -> tuple[Experience, RolloutBatch]:
    """What a process makes of its own rollouts and another's."""
    parts = [of_process(other) for other in (0, 1)]
    sent = [(batch.rollouts, scores, old, [], batch.seconds, batch.metrics) for batch, scores, old in parts]
    monkeypatch.setattr(experience, "all_gather", lambda mine: sent)
    monkeypatch.setattr(experience, "processes", lambda: Processes(rank, 2))
    batch, scores, old = parts[rank]

    def advantages(rewards, size):
        return (rewards.view(-1, size) - rewards.view(-1, size).mean(1, keepdim=True)).view(-1), [1]

    return experience.exchange(batch, scores, old, None, advantages), batch


@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_has_the_same_experience_and_knows_its_own_part(rank, monkeypatch):
    made, batch = exchanged(rank, monkeypatch)
    assert [len(r.completion.ids) for r in made.rollouts] == [1, 3, 2, 3] and made.own == slice(2 * rank, 2 * rank + 2)
    assert made.rollouts[made.own] == batch.rollouts and len(batch) == 2  # the batch stays this process's own
    assert made.advantages.tolist() == [-1.0, 1.0, -1.5, 1.5] and made.learning_groups == [1]
    assert made.batch.seconds == 2.0 and made.batch.metrics == {"resampled": 0.5} and batch.seconds == 1.0 + rank
    assert made.scores.values["luck"].tolist() == [1.0, 3.0, 1.0, 4.0] and made.scores.metrics == {"luck/mean": 1.0}
    assert [len(t) for t in made.old_logprobs] == [1, 3, 2, 3] and made.reference_logprobs is None
    assert made.tokens == 4 * 2 + 9
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.advantages = torch.zeros(4)


@pytest.mark.parametrize("by_token", [False, True])
def test_a_loss_is_given_the_rows_that_were_scored(by_token, monkeypatch):
    made, _ = exchanged(0, monkeypatch)
    if by_token:
        tokens = [torch.arange(float(len(old))) + 1 for old in made.old_logprobs]
        made = dataclasses.replace(made, advantages=tokens)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    scored = Scored([3, 2], mask, torch.zeros(2, 3), torch.ones(2, 3))
    inputs = loss_inputs(made, scored, MinibatchCounts(4, 9, 20))
    assert inputs.old_logprobs.tolist() == [[-2.0] * 3, [-1.0, -1.0, 0.0]] and inputs.counts.tokens == 9
    if by_token:
        assert inputs.token_advantages.tolist() == [[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]]
    else:
        assert inputs.advantages.tolist() == [1.5, -1.5] and inputs.token_advantages.shape == (2, 1)


class Says(Loss):
    """Returns what a function of its inputs gives."""

    def __init__(self, says) -> None:
        self.says = says

    def __call__(self, inputs):
        return self.says(inputs)


@pytest.fixture
def inputs() -> LossInputs:
    logprobs, mask = torch.zeros(2, 3, requires_grad=True), torch.tensor([[True, True, True], [True, False, False]])
    zeros = torch.zeros(2, 3)
    return LossInputs(logprobs, zeros, None, torch.ones(2), mask, zeros, MinibatchCounts(2, 4, 20))


def test_a_loss_may_be_a_scalar_alone(inputs):
    assert evaluate(Says(lambda i: i.logprobs.sum()), inputs).metrics == {}


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (lambda i: i.logprobs, r"the loss Says gave shape \[2, 3\]; return a scalar"),
        (lambda i: 1.0, "the loss Says gave float; return a scalar"),
        (lambda i: i.logprobs.detach().sum(), "the loss Says has no gradient"),
        (
            lambda i: LossOutput(i.logprobs.sum(), {"mine": torch.ones(3)}),
            r"its metric 'mine' the shape \[3\]; give \[2, 3\]",
        ),
        (lambda i: LossOutput(i.logprobs.sum(), {"loss": torch.ones(2)}), "a metric 'loss', which every update logs"),
    ],
)
def test_what_is_no_loss_names_it(inputs, says, sentence):
    with pytest.raises(UserError, match=sentence):
        evaluate(Says(says), inputs)


def test_metrics_are_means_over_tokens_or_completions_or_extremes(inputs):
    """Padding holds rubbish; one completion of the second step was left out as truncated."""
    token, whole = torch.tensor([[1.0, 2.0, 6.0], [5.0, 99.0, 99.0]]), torch.tensor([1.0, 4.0])
    metrics = {
        "token": token, "whole": whole, "least": Extreme(token, "min"), "most": Extreme(token, "max"),
        "least_whole": Extreme(whole, "min"),
    }  # fmt: skip
    outputs = LossOutput(torch.tensor(0.25), metrics), LossOutput(torch.tensor(0.5), {})  # a part may have none
    parts = [LossPart(output, inputs.completion_mask, inputs.entropy) for output in outputs]
    means = step_metrics([OptimizerStep.of(parts, torch.tensor(1.0), masked) for masked in (0, 1)], ["never"])
    assert means["loss"] == 0.75 and means["token"] == 14 / 4 and means["whole"] == 10 / 5
    assert means["least"] == 3.0 and means["most"] == 5.0 and means["least_whole"] == 0.5 and means["never"] == 0
