"""The gold answer's log-probability as a reward, beside one plain forward pass for each rollout in float64."""

import math

import pytest
import torch
from test_rewards import batch

from atmanrl.probe.attention import ProbeError
from atmanrl.probe.target import target
from atmanrl.rewards import Gate, GoldLogprobReward, OutcomeReward, score

TEXTS = ["1 + 2 = 3 ##### 3", "no delimiter", "we think so ##### 4", "##### 3", " ##### 3 and more", "so\n##### 72"]
CORRECT = [True, False, False, True, False, False]


def expected(policy, rollout, eos: bool = False) -> float:
    if rollout.parts.answer is None:
        return math.nan
    aim = target(rollout, policy.tokenizer, policy.eos_ids[0] if eos else None)
    ids = torch.tensor([[*aim.prompt, *aim.tail]])
    with torch.no_grad():
        logprobs = policy.model(ids).logits[0].log_softmax(-1)
    start = ids.shape[1] - aim.answer
    return float(sum(logprobs[k - 1, ids[0, k]] for k in range(start, ids.shape[1])) / aim.answer)


@pytest.mark.parametrize("eos", [False, True])
@pytest.mark.parametrize("budget", [16384, 16])
def test_it_is_the_mean_over_the_answers_tokens(tiny_policy, eos, budget):
    rollouts = batch(tiny_policy, TEXTS, CORRECT)
    values = GoldLogprobReward(include_eos=eos, micro_batch_tokens=budget)(rollouts, tiny_policy)
    assert values.tolist() == pytest.approx(
        [expected(tiny_policy, r, eos) for r in rollouts.rollouts], abs=1e-6, nan_ok=True
    )
    assert not values.requires_grad and all(p.grad is None for p in tiny_policy.parameters())


def test_a_longer_gold_answer_counts_by_its_mean(tiny_policy):
    rollouts = batch(tiny_policy, ["so ##### 3"], [False], 1)
    rollouts.rollouts[0].problem = type(rollouts.rollouts[0].problem)("p", "?", "12345 678")
    assert target(rollouts.rollouts[0], tiny_policy.tokenizer).answer > 2
    value = GoldLogprobReward()(rollouts, tiny_policy)
    assert value.item() == pytest.approx(expected(tiny_policy, rollouts.rollouts[0]), abs=1e-6)


def test_abstentions_and_gates_in_the_total(tiny_policy):
    rollouts = batch(tiny_policy, TEXTS, CORRECT)
    gold = {"gold": GoldLogprobReward(weight=2.0)}
    each = [expected(tiny_policy, r) for r in rollouts.rollouts]
    total = score(gold, rollouts, tiny_policy).total.tolist()
    assert total == pytest.approx([2 * each[0], 2 * each[0], *(2 * v for v in each[2:])], abs=1e-5)
    gold["gold"].only_where = Gate("outcome")
    total = score({"outcome": OutcomeReward()} | gold, rollouts, tiny_policy).total.tolist()
    assert total == pytest.approx([2 * each[0], -1.0, -1.0, 2 * each[3], -1.0, -1.0], abs=1e-5)


def test_it_runs_the_policy_and_is_left_out_of_evaluation():
    assert GoldLogprobReward.uses_policy


def test_a_rollout_that_exceeds_the_context_names_its_problem(tiny_policy):
    rollouts = batch(tiny_policy, ["so ##### 3"], [False], 1)
    rollouts.rollouts[0].prompt_ids = [5] * 5000
    with pytest.raises(ProbeError, match="test/0: .* tokens exceed the model's context"):
        GoldLogprobReward()(rollouts, tiny_policy)
