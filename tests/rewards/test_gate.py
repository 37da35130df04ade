"""Rewards that count only where another one is high enough."""

import math

import pytest
import torch
from test_rewards import Given, batch

from atmanrl.errors import UserError
from atmanrl.rewards import Gate, OutcomeReward, Reward, SaliencyReward, in_order, score, without_policy

NAN = float("nan")


class Noting(Reward):
    """The number of each rollout, and a note of the batches that it was given."""

    def __init__(self, sign: float = 1.0, **options) -> None:
        super().__init__(**options)
        self.sign, self.given = sign, []

    def __call__(self, batch, policy):
        self.given.append(([r.row for r in batch.rollouts], batch.group_size))
        return self.sign * torch.tensor([1.0 + r.row for r in batch.rollouts])


@pytest.fixture
def four(tiny_policy):
    return batch(tiny_policy, ["##### 3", "##### 4", "##### 3", "nothing"], [True, False, True, None])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_counts_where_the_gate_is_open_and_adds_nothing_elsewhere(four, sign):
    gated = Noting(sign, weight=2.0, only_where=Gate("outcome"))
    scores = score({"gated": gated, "outcome": OutcomeReward()}, four, None)
    assert gated.given == [([0, 2], 1)]
    assert list(scores.values) == ["gated", "outcome"]
    assert scores.total.tolist() == [2 * sign, -1.0, 6 * sign, -1.0]
    assert scores.values["gated"].isnan().tolist() == [False, True, False, True]
    assert scores.metrics == {"rewards/gated/counted": 0.5}
    assert math.isnan(four.rollouts[1].rewards["gated"]) and four.rollouts[2].rewards["gated"] == 3 * sign
    everywhere = score({"gated": Noting(sign, weight=2.0), "outcome": OutcomeReward()}, four, None)
    assert everywhere.total.tolist() == [2 * sign, 4 * sign - 1, 6 * sign, 8 * sign - 1]


def test_the_threshold_is_reached_before_the_weight(four):
    rewards = {"length": Given([0.2, 0.5, NAN, 0.7], weight=0.0), "gated": Noting(only_where=Gate("length", 0.5))}
    assert score(rewards, four, None).total.tolist() == [0.0, 2.0, 0.0, 4.0]  # abstaining shuts the gate


def test_gates_in_a_row(four):
    last, middle = Noting(only_where=Gate("middle", 3.0)), Noting(only_where=Gate("outcome"))
    scores = score({"last": last, "middle": middle, "outcome": OutcomeReward()}, four, None)
    assert last.given == [([2], 1)] and scores.total.tolist() == [1.0, -1.0, 6.0, -1.0]


def test_an_abstention_behind_an_open_gate_is_filled_from_its_group(four):
    class Abstaining(Noting):
        def __call__(self, batch, policy):
            return torch.tensor([NAN, -5.0, -2.0])

    gate = Given([1.0, 1.0, 0.0, 1.0], weight=0.0)
    scores = score({"gate": gate, "gated": Abstaining(only_where=Gate("gate", 0.5))}, four, None)
    assert scores.total.tolist() == [-5.0, -5.0, 0.0, -2.0]


def test_a_gate_that_is_shut_everywhere(four):
    gated = Noting(only_where=Gate("outcome", 0.5))
    scores = score({"outcome": OutcomeReward(), "gated": gated}, four, None)
    assert not gated.given and scores.total.tolist() == [0.0, -1.0, 0.0, -1.0]
    assert scores.metrics == {"rewards/gated/counted": 0.0}


def test_the_probe_is_spared(four):
    class Probe:
        def solve(self, policy, batch):
            raise AssertionError("probed")

    gated = SaliencyReward(probe=Probe(), only_where=Gate("outcome", 1.0))
    assert score({"outcome": OutcomeReward(), "saliency": gated}, four, None).total.tolist() == [0.0, -1.0, 0.0, -1.0]


def test_wrong_gates(four):
    with pytest.raises(UserError, match=r"model\.rewards\.a\.only_where\.reward: there is no reward 'outcme'.*outcome"):
        score({"a": Noting(only_where=Gate("outcme")), "outcome": OutcomeReward()}, four, None)
    with pytest.raises(UserError, match=r"no reward 'b'; a gate needs a second reward\."):
        score({"a": Noting(only_where=Gate("b"))}, four, None)
    with pytest.raises(UserError, match="circle: .* -> "):
        score({"a": Noting(only_where=Gate("b")), "b": Noting(only_where=Gate("a"))}, four, None)


@pytest.mark.parametrize("name", ["", " ", "a\x1b[31m", "a\nb", "half \ud800", "\u202eturned", "a\x00"])
def test_names_that_do_not_print(name):
    with pytest.raises(UserError, match=r"model\.rewards: .* is no name"):
        in_order({name: OutcomeReward()})
    assert in_order({"Länge (七)": OutcomeReward()}) == ["Länge (七)"]


def test_what_evaluation_can_afford():
    rewards = {
        "gated": Noting(only_where=Gate("saliency")), "fine": Noting(only_where=Gate("outcome")),
        "saliency": SaliencyReward(), "outcome": OutcomeReward(),
    }  # fmt: skip
    assert list(without_policy(rewards)) == ["fine", "outcome"]
