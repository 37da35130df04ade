"""Saliency on a share of the groups: which are probed, what that is worth, and that the mean gradient stays as it is."""

import math
from types import SimpleNamespace

import pytest
import torch
from test_rewards import NAN, batch

from atmanrl.errors import UserError
from atmanrl.grpo.advantages import group_advantages
from atmanrl.probe import PaperSolver
from atmanrl.rewards import Gate, OutcomeReward, Reward, RewardError, RewardOutput, SaliencyReward, score
from atmanrl.rewards.group_draw import GroupDraw

GROUP = 3


class StubProbe:
    """Gives each rollout a saliency by its row, NaN to every fourth, and notes which rollouts it was given."""

    solver = PaperSolver()

    def __init__(self) -> None:
        self.probed = []

    def solve(self, policy, batch):
        rows = [rollout.row for rollout in batch.rollouts]
        self.probed.append([(rollout.row, rollout.sample) for rollout in batch.rollouts])
        number = [GROUP * rollout.row + rollout.sample for rollout in batch.rollouts]
        reward = torch.tensor([NAN if n % 4 == 1 else 0.3 + math.sin(n) for n in number])
        return SimpleNamespace(
            reward=reward, saliency=[[0.5]] * len(rows), gradients=torch.full((len(rows),), 3),
            metrics=lambda: {"probe/seconds": 1.5},
        )  # fmt: skip


def groups(policy, count: int, first: int = 0, update: int = 0, seed: int = 0):
    """Groups of an update from the place `first` on."""
    texts = ["1 + 2 ##### 3"] * GROUP * count
    rollouts = batch(policy, texts, [i % 2 == 0 for i in range(len(texts))], GROUP)
    for i, rollout in enumerate(rollouts.rollouts):
        rollout.row = first + i // GROUP
    rollouts.places = {first + k: first + k for k in range(count)}
    rollouts.update, rollouts.seed = update, seed
    return rollouts


@pytest.mark.parametrize("share", [0.25, 0.4, 0.1, 1 / 3, 0.9])
def test_each_place_is_drawn_with_the_same_probability(share):
    """By enumeration: the draws change with u at multiples of 1 / 120 alone."""
    draw, starts = GroupDraw(share), [(k + 0.5) / 120 for k in range(120)]
    drawn = torch.tensor([[draw._is_drawn(place, start) for place in range(24)] for start in starts]).double()
    torch.testing.assert_close(drawn.mean(0), torch.full((24,), share, dtype=torch.float64))
    for count in range(1, 25):  # and as many of each beginning as there can be
        assert set(drawn[:, :count].sum(1).tolist()) <= {
            float(math.floor(count * share)),
            math.floor(count * share) + 1.0,
        }


@pytest.mark.parametrize(("share", "starts"), [(0.25, 4), (0.4, 5), (0.75, 4)])
def test_the_mean_gradient_is_that_of_probing_all(tiny_policy, monkeypatch, share, starts):
    """Advantages are linear in rewards, and an update's gradient is in advantages; abstentions are among the rollouts."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(10 * GROUP, 7, generator=generator)  # d log p of each rollout in seven weights

    def gradient(share: float) -> torch.Tensor:
        rewards = {"outcome": OutcomeReward(), "saliency": SaliencyReward(2.0, StubProbe(), share=share)}
        total = score(rewards, groups(tiny_policy, 10), None).total
        return group_advantages(total, GROUP) @ slopes

    gradients = []
    for k in range(starts):  # every draw that there is, each as likely
        monkeypatch.setattr(GroupDraw, "_start", lambda self, batch, k=k: (k + 0.5) / starts)
        gradients.append(gradient(share))
    assert len({tuple(each.tolist()) for each in gradients}) == starts
    torch.testing.assert_close(torch.stack(gradients).mean(0), gradient(1.0), rtol=0, atol=1e-5)


def test_only_drawn_groups_are_probed_and_the_others_have_no_say(tiny_policy):
    probe = StubProbe()
    rollouts = groups(tiny_policy, 8)
    scores = score({"saliency": SaliencyReward(2.0, probe, share=0.25)}, rollouts, None)
    (probed,) = probe.probed
    drawn = sorted({row for row, _ in probed})
    assert len(drawn) == 2 and drawn[1] - drawn[0] == 4 and len(probed) == 2 * GROUP
    assert scores.metrics["saliency/probed_share"] == 0.25
    for row, values in enumerate(scores.values["saliency"].view(8, GROUP)):
        numbers = [GROUP * row + g for g in range(GROUP)]
        expected = [NAN if row not in drawn or n % 4 == 1 else 0.3 + math.sin(n) for n in numbers]
        assert values.tolist() == pytest.approx(expected, nan_ok=True)  # unweighted, as any reward's
        lowest = min([0.0, *(v for v in expected if not math.isnan(v))])
        filled = [0.0] * GROUP if row not in drawn else [8 * (lowest if math.isnan(v) else v) for v in expected]
        assert scores.total.view(8, GROUP)[row].tolist() == pytest.approx(filled)
    for rollout in rollouts.rollouts:
        assert (rollout.saliency is None) == (rollout.row not in drawn) == ("saliency" not in rollout.token_values)


@pytest.mark.parametrize("share", [0.25, 0.3, 0.5])
def test_the_draw_is_the_same_on_any_number_of_processes_and_after_a_restart(tiny_policy, share):
    draw, draws = GroupDraw(share), []
    for update in range(12):
        whole = groups(tiny_policy, 8, update=update, seed=5)
        drawn = {whole.rollouts[i].row for i in draw.rollouts(whole)}
        for count in (2, 4, 8):
            each = 8 // count
            parts = [groups(tiny_policy, each, each * rank, update, seed=5) for rank in range(count)]
            assert {part.rollouts[i].row for part in parts for i in GroupDraw(share).rollouts(part)} == drawn
        draws.append(tuple(sorted(drawn)))
    assert len(set(draws)) > 1  # not the same places in each update


def test_runs_of_other_seeds_draw_others(tiny_policy):
    draw = GroupDraw(0.25)
    sequences = {
        tuple(draw.rollouts(groups(tiny_policy, 8, update=update, seed=seed))[0] for update in range(10))
        for seed in range(3)
    }
    assert len(sequences) == 3


def test_a_process_without_a_drawn_group_has_nothing_to_probe(tiny_policy):
    reward = SaliencyReward(share=0.25)
    part = next(p for p in (groups(tiny_policy, 1, place) for place in range(8)) if not reward.draw.rollouts(p))
    scores = score({"saliency": reward}, part, tiny_policy)
    assert scores.total.tolist() == [0.0] * GROUP and scores.metrics["saliency/probed_share"] == 0.0


def test_a_process_whose_groups_are_all_drawn_weighs_them_all_the_same(tiny_policy):
    probe = StubProbe()
    reward = SaliencyReward(1.0, probe, share=0.25)
    part = next(p for p in (groups(tiny_policy, 1, place) for place in range(8)) if reward.draw.rollouts(p))
    output = reward(part, None)
    assert len(probe.probed[0]) == GROUP and output.factors.tolist() == [4.0] * GROUP


def test_in_evaluation_everything_is_probed(tiny_policy):
    probe, rollouts = StubProbe(), groups(tiny_policy, 8)
    rollouts.places = {}
    output = SaliencyReward(1.0, probe, share=0.25)(rollouts, None)
    assert len(probe.probed[0]) == 8 * GROUP and output.factors is None
    assert "saliency/probed_share" not in output.metrics


def test_behind_a_gate_the_draw_is_of_the_same_groups(tiny_policy):
    probe, rollouts = StubProbe(), groups(tiny_policy, 8)
    rewards = {"outcome": OutcomeReward(), "saliency": SaliencyReward(1.0, probe, Gate("outcome"), share=0.25)}
    scores = score(rewards, rollouts, None)
    drawn = {rollouts.rollouts[i].row for i in GroupDraw(0.25).rollouts(rollouts)}
    expected = [(r.row, r.sample) for r in rollouts.rollouts if r.row in drawn and r.correct]
    assert probe.probed == [expected] and scores.metrics["rewards/saliency/counted"] == 0.5


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, NAN])
def test_a_share_that_is_none(share):
    with pytest.raises(UserError, match="SaliencyReward: share is .*; give a part of the groups above 0 and up to 1"):
        SaliencyReward(share=share)


class Factored(Reward):
    def __init__(self, factors, **options):
        super().__init__(**options)
        self.factors = factors

    def __call__(self, batch, policy):
        return RewardOutput(torch.tensor([1.0, NAN, 3.0, NAN]), factors=torch.tensor(self.factors))


def test_factors_multiply_in_the_total_alone(tiny_policy):
    four = batch(tiny_policy, ["a", "b", "c", "d"], [None] * 4)
    scores = score({"own": Factored([2.0, 2.0, 0.0, 0.0], weight=-0.5)}, four, None)
    assert scores.total.tolist() == [
        -1.0,
        -1.0,
        0.0,
        0.0,
    ]  # an abstention with a factor is filled, one without adds nothing
    assert scores.values["own"].tolist() == pytest.approx([1.0, NAN, 3.0, NAN], nan_ok=True)


@pytest.mark.parametrize("factors", [[1.0], [1.0, 1.0, -1.0, 1.0], [1.0, NAN, 1.0, 1.0]])
def test_factors_that_are_none(tiny_policy, factors):
    four = batch(tiny_policy, ["a", "b", "c", "d"], [None] * 4)
    with pytest.raises(RewardError, match="reward 'own' gave factors .* for 4 rollouts"):
        score({"own": Factored(factors)}, four, None)
