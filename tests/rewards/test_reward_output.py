"""What a reward may return, and where its values for single tokens are kept."""

import ast
from graphlib import TopologicalSorter

import pytest
import torch
from conftest import ROOT
from test_rewards import batch

from atmanrl.rewards import Gate, Reward, RewardError, RewardOutput, score


class Says(Reward):
    """Returns what a function of the batch gives."""

    def __init__(self, says, **options) -> None:
        super().__init__(**options)
        self.says = says

    def __call__(self, batch, policy):
        return self.says(batch)


@pytest.fixture
def four(tiny_policy):
    return batch(tiny_policy, ["so ##### 3", "##### 4", "no", "1 + 2 ##### 3"], [True, False, True, None])


def ones(batch):
    return torch.ones(len(batch))


def test_a_tensor_is_enough(four):
    plain, full = (score({"one": Says(says)}, four, None) for says in (ones, lambda b: RewardOutput(ones(b))))
    assert plain.total.tolist() == full.total.tolist() == [1.0] * 4 and plain.metrics == full.metrics == {}
    assert all(rollout.token_values == {} for rollout in four.rollouts)


def test_values_of_tokens_are_kept_by_the_rewards_name(four):
    def says(batch):
        lengths = [len(r.completion.ids) for r in batch.rollouts]
        tokens = [torch.arange(lengths[0]), [0.5], None, [1] * lengths[3]]
        return RewardOutput(ones(batch), {"my/length": 2.0}, tokens)

    scores = score({"tokens": Says(says), "plain": Says(ones)}, four, None)
    first, second, third, last = (rollout.token_values for rollout in four.rollouts)
    assert first == {"tokens": [float(i) for i in range(len(four.rollouts[0].completion.ids))]}
    assert second == {"tokens": [0.5]} and third == {} and set(last["tokens"]) == {1.0}
    assert scores.metrics == {"my/length": 2.0}


def test_behind_a_gate_they_reach_the_rollouts_that_pass(four):
    gate = Says(lambda b: torch.tensor([0.0, 1.0, 0.0, 1.0]))
    tokens = Says(
        lambda b: RewardOutput(ones(b), {}, [[float(i)] for i in range(len(b))]), only_where=Gate("gate", 1.0)
    )
    score({"gate": gate, "tokens": tokens}, four, None)
    assert [rollout.token_values.get("tokens") for rollout in four.rollouts] == [None, [0.0], None, [1.0]]


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        (lambda b: [1.0] * len(b), "gave list"),
        (lambda b: RewardOutput([1.0] * len(b)), "gave list"),
        (lambda b: RewardOutput(torch.ones(3)), r"gave shape \[3\] for 4 rollouts"),
        (lambda b: RewardOutput(ones(b), {}, [[1.0]]), "gave token_values of 1 rollouts for 4 rollouts"),
        (lambda b: RewardOutput(ones(b), {}, [[1.0] * 99] * 4), "gave 99 token_values for .* tokens on problem test/0"),
    ],
)
def test_what_is_no_reward_names_it(four, says, sentence):
    with pytest.raises(RewardError, match=f"reward 'mine' {sentence}"):
        score({"mine": Says(says)}, four, None)


@pytest.mark.parametrize("folder", ["rewards", "grpo"])
def test_imports_go_in_no_circle(folder):
    """Also where they are made for types alone."""
    needs = {}
    for path in (ROOT / "atmanrl" / folder).glob("[!_]*.py"):
        imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        needs[f"atmanrl.{folder}.{path.stem}"] = {node.module for node in imports}
    assert set(needs) <= set(TopologicalSorter(needs).static_order())
