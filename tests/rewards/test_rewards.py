"""Rewards: each one's values, what abstaining is worth, and how several make one."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.probe import MaskProbe, PaperSolver
from atmanrl.rewards import (
    GoldLogprobReward,
    OutcomeReward,
    Reward,
    RewardError,
    RewardOutput,
    SaliencyReward,
    fill_abstentions,
    score,
)
from atmanrl.rollouts import Completion, Rollout, RolloutBatch, split
from atmanrl.tasks import Problem

NAN, INF = float("nan"), float("inf")


class Given(Reward):
    """Gives what it was told to give."""

    def __init__(self, values: object, weight: float = 1.0, metrics: dict[str, float] | None = None) -> None:
        super().__init__(weight)
        self.values, self.metrics = values, metrics

    def __call__(self, batch, policy):
        values = torch.as_tensor(self.values)
        return values if self.metrics is None else RewardOutput(values, self.metrics)


def batch(policy, texts: list[str], right: list[bool | None], group_size: int = 2) -> RolloutBatch:
    rollouts = []
    for i, (text, is_right) in enumerate(zip(texts, right, strict=True)):
        ids = policy.tokenizer(text).input_ids
        problem, prompt = Problem(f"test/{i // group_size}", "1 + 2?", "3"), policy.encode_prompt("1 + 2?")
        parts, completion = split(policy.tokenizer, ids), Completion(ids, [], True)
        rollouts.append(Rollout(problem, i, i % group_size, "1 + 2?", prompt, completion, parts, is_right))
    return RolloutBatch(rollouts, group_size)


@pytest.fixture
def four(tiny_policy) -> RolloutBatch:
    return batch(
        tiny_policy, ["1 + 2 = 3 ##### 3", "so ##### 4", "  ##### 3", "no delimiter"], [True, False, True, None]
    )


def test_the_outcome(four):
    assert OutcomeReward()(four, None).tolist() == [0.0, -1.0, 0.0, -1.0]
    assert OutcomeReward(weight=2.0).weight == 2.0 and not OutcomeReward.uses_policy


VALUES = st.one_of(st.just(NAN), st.floats(-10, 10, width=32))


@given(st.integers(1, 5).flatmap(lambda g: st.lists(st.lists(VALUES, min_size=g, max_size=g), min_size=1, max_size=4)))
def test_abstentions_are_filled_as_in_plain_python(groups):
    expected = []
    for group in groups:
        valid = [v for v in group if not math.isnan(v)]
        lowest = min([0.0, *valid])
        expected += [lowest if math.isnan(v) else v for v in group]
    values = torch.tensor(sum(groups, []))
    before = values.clone()
    assert fill_abstentions(values, len(groups[0])).tolist() == expected
    assert torch.equal(values.nan_to_num(99.0), before.nan_to_num(99.0))  # the values themselves stay as they were


def test_abstaining_never_pays():
    filled = fill_abstentions(torch.tensor([0.5, NAN, 0.2, -0.3, NAN, NAN, NAN, NAN, NAN]), 3)
    assert filled.tolist() == pytest.approx([0.5, 0, 0.2, -0.3, -0.3, -0.3, 0, 0, 0])


def test_rewards_are_added_by_weight_and_noted(four):
    rewards = {
        "a": Given([1.0, 2.0, 3.0, 4.0], weight=0.5, metrics={"a/seconds": 1.0}),
        "b": Given([NAN, -2.0, 5.0, NAN], weight=3.0, metrics={"b/seconds": 2.0}),
        "whole": Given([1, 0, 1, 0]),
        "silent": Given([7.0, 7.0, 7.0, 9.0], weight=0.0),
    }
    scores = score(rewards, four, None)
    assert scores.total.tolist() == pytest.approx([0.5 - 6 + 1, 1 - 6, 1.5 + 15 + 1, 2.0])
    assert list(scores.values) == ["a", "b", "whole", "silent"]
    assert scores.values["b"].isnan().tolist() == [True, False, False, True]  # as given, not filled
    assert scores.metrics == {"a/seconds": 1.0, "b/seconds": 2.0}
    assert four.rollouts[1].rewards == {"a": 2.0, "b": -2.0, "whole": 0.0, "silent": 7.0}
    assert math.isnan(four.rollouts[0].rewards["b"])
    assert scores.total.dtype == torch.float32 and scores.total.device.type == "cpu"


def test_the_total_has_no_gradient_and_no_reward_means_zero(four):
    learned = torch.ones(4, dtype=torch.float64, requires_grad=True)
    assert not score({"learned": Given(learned)}, four, None).total.requires_grad
    assert score({}, four, None).total.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]], [[1.0], [2.0], [3.0], [4.0]], 1.0, [1.0]]
)
def test_a_wrong_shape_names_the_reward(four, values):
    with pytest.raises(RewardError, match=r"reward 'odd' gave shape \[.*\] for 4 rollouts"):
        score({"fine": OutcomeReward(), "odd": Given(values)}, four, None)
    assert all("odd" not in r.rewards for r in four.rollouts)


@pytest.mark.parametrize("bad", [INF, -INF])
def test_an_infinite_value_names_the_reward_and_the_rollout(four, bad):
    with pytest.raises(
        RewardError, match="reward 'odd' gave an infinite value on problem test/1, sample 1, .*no delim"
    ):
        score({"odd": Given([0.0, NAN, 0.0, bad])}, four, None)


class StubProbe:
    """Probes as `MaskProbe.solve` does, with made-up numbers."""

    solver = PaperSolver()

    def solve(self, policy, batch):
        probed = [r.can_be_probed for r in batch.rollouts]
        reward = torch.tensor([0.1 * (i + 1) if p else NAN for i, p in enumerate(probed)])
        saliency = [[0.5] * r.parts.cot_length if p else None for r, p in zip(batch.rollouts, probed, strict=True)]
        gradients = torch.full((len(batch),), 3)
        return SimpleNamespace(
            reward=reward, saliency=saliency, gradients=gradients, metrics=lambda: {"probe/seconds": 1.5}
        )


def test_saliency_abstains_without_reasoning_or_delimiter(four):
    reward = SaliencyReward(weight=2.0, probe=StubProbe())
    output = reward(four, None)
    assert output.values.isnan().tolist() == [False, False, True, True]  # blank reasoning; no delimiter
    assert [r.saliency is None for r in four.rollouts] == [False, False, True, True]
    assert len(four.rollouts[0].saliency) == four.rollouts[0].parts.cot_length
    assert output.token_values == [r.saliency for r in four.rollouts]
    assert output.metrics["probe/seconds"] == 1.5
    assert output.metrics["saliency/solved"] == pytest.approx(0.1)  # the right one that abstained is left out
    assert output.metrics["saliency/unsolved"] == pytest.approx(0.2)
    assert SaliencyReward.uses_policy and SaliencyReward().probe.policy is None


def test_saliency_and_log_probability_abstain_without_a_gold_answer(tiny_policy):
    both = batch(tiny_policy, ["1 + 2 = 3 ##### 3"] * 2, [True, False])
    both.rollouts[0].problem = dataclasses.replace(both.rollouts[0].problem, gold=" ")
    for reward in (SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=1))), GoldLogprobReward()):
        output = reward(both, tiny_policy)
        values = output if isinstance(output, torch.Tensor) else output.values
        assert values.isnan().tolist() == [True, False]


def test_outcome_and_saliency_together(four):
    scores = score({"outcome": OutcomeReward(), "saliency": SaliencyReward(2.0, StubProbe())}, four, None)
    assert scores.total.tolist() == pytest.approx([0.2, -1 + 0.4, 0.0, -1.0])
    assert math.isnan(four.rollouts[3].rewards["saliency"]) and four.rollouts[3].rewards["outcome"] == -1.0


def test_a_real_probe_gives_each_rollout_what_it_gives_it_alone(tiny_policy):
    from atmanrl.probe import MaskProbe
    from atmanrl.probe.solvers import PaperSolver

    texts, right = ["1 + 2 = 3 ##### 3", "no delimiter", "we think so ##### 4", "##### 3"], [True, False, False, True]
    reward = SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=5, lr=0.05)))
    together = reward(batch(tiny_policy, texts, right), tiny_policy).values
    single = [batch(tiny_policy, [text], [is_right], 1) for text, is_right in zip(texts, right, strict=True)]
    alone = torch.cat([reward(one, tiny_policy).values for one in single])
    assert together.isnan().tolist() == alone.isnan().tolist() == [False, True, False, True]
    assert torch.allclose(together, alone, atol=1e-6, equal_nan=True) and together[0] != together[2]
