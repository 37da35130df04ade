"""Token credit: the weights of a completion's tokens, and the gradient that follows from them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_grpo_module import GROUP, Feed, Lottery, Run

from atmanrl.errors import UserError
from atmanrl.grpo import ClippedLoss, GRPOModule, TokenCredit
from atmanrl.models.policy import Policy
from atmanrl.rewards import RewardOutput, SaliencyReward
from atmanrl.rollouts import Completion, Parts, Rollout
from atmanrl.tasks import Problem


def rollout(values: list[float] | None, length: int) -> Rollout:
    completion = Completion([5] * length, [-1.0] * length, True)
    tokens = {} if values is None else {"saliency": values}
    return Rollout(Problem("p/0", "?", "1"), 0, 0, "", [1], completion, Parts("", "", "1", 0), token_values=tokens)


VALUES = st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=12)


@given(VALUES, st.floats(0, 1), st.integers(0, 3))
def test_weights_as_in_plain_python(values, floor, rest):
    weights = TokenCredit(floor=floor).weights(rollout(values, len(values) + rest)).tolist()
    positive = [max(value, 0.0) for value in values]
    mean = sum(positive) / len(positive)
    expected = [floor + (1 - floor) * value / mean if mean else 1.0 for value in positive]
    assert weights == pytest.approx([*expected, *[1.0] * rest], rel=1e-6, abs=1e-6)


@given(VALUES, st.floats(0, 1))
def test_their_mean_is_1_and_none_is_below_the_floor(values, floor):
    weights = TokenCredit(floor=floor).weights(rollout(values, len(values)))
    assert float(weights.double().mean()) == pytest.approx(1, abs=1e-6)
    assert float(weights.min()) >= floor - 1e-6


def test_the_example():
    weights = TokenCredit().weights(rollout([0.0, 0.3, 0.1], 5))
    assert weights.tolist() == pytest.approx([0.1, 2.125, 0.775, 1.0, 1.0])


@pytest.mark.parametrize("values", [None, [], [0.2] * 4, [0.0] * 4, [-0.3, -0.1, 0.0, -0.2]])
def test_all_weigh_1_where_the_reward_tells_no_difference(values):
    assert TokenCredit().weights(rollout(values, 6)).tolist() == [1.0] * 6


def test_a_value_that_is_not_finite_names_the_rollout():
    with pytest.raises(
        UserError, match="reward 'saliency' gave a token of problem p/0, sample 0, a value that is not fin"
    ):
        TokenCredit().weights(rollout([0.1, float("nan")], 2))


@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_is_none(floor):
    with pytest.raises(UserError, match="model.credit.floor is .*; give a number from 0 to 1"):
        TokenCredit(floor=floor)


@pytest.mark.parametrize("credit", ["saliency", TokenCredit("saliency")])
def test_a_reward_that_is_not_there(credit):
    with pytest.raises(
        UserError, match="model.credit: there is no reward 'saliency' in model.rewards; choose one of luck"
    ):
        GRPOModule(Policy("nowhere"), rewards={"luck": Lottery()}, credit=credit)


class Told(Lottery):
    """Values for tokens of every second rollout: for all of them but the last."""

    def __init__(self, constant: bool = False) -> None:
        super().__init__()
        self.constant = constant

    def __call__(self, batch, policy):
        tokens = [
            [0.3 if self.constant else float(k % 3) for k in range(len(r.completion.ids) - 1)] if i % 2 else None
            for i, r in enumerate(batch.rollouts)
        ]
        return RewardOutput(super().__call__(batch, policy), {}, tokens)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_an_updates_gradient_by_hand(tiny_folder, tiny_policy, loss_type):
    """One step from the policy that sampled: the gradient is the mean of w_t A grad log p_t."""
    options = {"loss": ClippedLoss(loss_type=loss_type), "max_grad_norm": None, "num_iterations": 1}
    run = Run(
        tiny_folder,
        updates=1,
        rewards={"told": Told()},
        credit=TokenCredit("told", 0.25),
        minibatch_queries=8,
        **options,
    )
    (batch,) = run.feed.given
    loss = torch.zeros((), dtype=torch.float64)
    tokens = sum(len(r.completion.ids) for r in batch.rollouts)
    for i, r in enumerate(batch.rollouts):
        ids, prompt = r.completion.ids, r.prompt_ids
        group = [other.rewards["told"] for other in batch.groups[i // GROUP]]
        weights = [1.0] * len(ids)
        if i % 2 and len(ids) > 1:
            values = [float(k % 3) for k in range(len(ids) - 1)]
            if any(values):
                weights[:-1] = [0.25 + 0.75 * v * len(values) / sum(values) for v in values]
        scores = tiny_policy.model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        for t, token in enumerate(ids):
            gain = weights[t] * (r.rewards["told"] - sum(group) / GROUP) * scores[len(prompt) - 1 + t, token]
            loss = loss - gain / (len(ids) * len(batch) if loss_type == "grpo" else tokens)
    loss.backward()
    expected = torch.cat([(p - p.grad).detach().flatten() for p in tiny_policy.parameters()])
    torch.testing.assert_close(run.weights, expected, rtol=0, atol=1e-6)
    assert run.logged["credit/rollouts"] == pytest.approx(0.5)
    assert 0 < run.logged["credit/effective_tokens"] < 1


def test_constant_values_and_a_floor_of_1_are_plain_grpo(tiny_folder):
    plain, constant, floored = (
        Run(tiny_folder, rewards={"told": Told(is_constant)}, credit=credit).weights
        for is_constant, credit in ((False, None), (True, "told"), (False, TokenCredit("told", 1.0)))
    )
    weighted = Run(tiny_folder, rewards={"told": Told()}, credit="told").weights
    torch.testing.assert_close(constant, plain, rtol=0, atol=1e-9)
    torch.testing.assert_close(floored, plain, rtol=0, atol=1e-9)
    assert not torch.allclose(weighted, plain, rtol=0, atol=1e-7)


def test_saliency_weighs_the_reasonings_tokens(tiny_folder):
    from atmanrl.probe import MaskProbe, PaperSolver

    saliency = SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=3, lr=0.1)))
    run = Run(tiny_folder, updates=1, feed=Feed(written=True), rewards={"saliency": saliency}, credit="saliency")
    credit, (batch,) = TokenCredit(), run.feed.given
    for r in batch.rollouts:
        weights = credit.weights(r)
        assert weights[r.parts.cot_length :].tolist() == [1.0] * (len(r.completion.ids) - r.parts.cot_length)
        assert (weights != 1).any() == (r.saliency is not None)
    assert run.logged["credit/rollouts"] == 0.5
