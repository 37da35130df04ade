"""CIR as a reward, beside six plain forward passes for each rollout in float64."""

import math

import pytest
import torch
from test_rewards import batch

from atmanrl.errors import UserError
from atmanrl.probe.target import target
from atmanrl.rewards import CausalImportanceReward, Gate, OutcomeReward, score

TEXTS = [
    "He has 1 + 2 = 3 and so ##### 3",
    "no delimiter",
    "we think it is 40 ##### 4",
    "##### 3",
    "so #####",
    "a\n##### 72",
]
CORRECT = [True, False, False, True, False, False]


def kl(p: float, q: float) -> float:
    return sum(a * math.log(a / b) for a, b in ((p, q), (1 - p, 1 - q)) if a > 0)


def probability(policy, ids: list[int], answer: tuple[int, ...]) -> float:
    """Of an answer after `ids`, by one pass over both."""
    with torch.no_grad():
        logprobs = policy.model(torch.tensor([[*ids, *answer]])).logits[0].log_softmax(-1)
    return math.exp(sum(float(logprobs[len(ids) - 1 + k, token]) for k, token in enumerate(answer)))


def cir(policy, rollout, whose: str) -> float:
    if not rollout.parts.answer:
        return math.nan
    own = rollout.parts.answer if whose == "own" else None
    aim = target(rollout, policy.tokenizer, policy.eos_ids[0], own)
    text = policy.tokenizer.decode(rollout.cot_ids)
    space = text[len(text.rstrip()) :]  # what stands before the delimiter stays there
    end = policy.tokenizer(space, add_special_tokens=False).input_ids if space else []
    words, p = text.split(), []
    for percent in (0, 20, 40, 60, 80):
        kept = words[: int(len(words) * percent / 100)]
        count = next(
            k for k in range(len(rollout.cot_ids) + 1) if policy.tokenizer.decode(rollout.cot_ids[:k]).split() == kept
        )
        p.append(probability(policy, [*aim.prompt, *rollout.cot_ids[:count], *end, *aim.delimiter_ids], aim.answer_ids))
    whole = probability(policy, [*aim.prompt, *rollout.cot_ids, *aim.delimiter_ids], aim.answer_ids)
    divergences = [(kl(each, (each + whole) / 2) + kl(whole, (each + whole) / 2)) / 2 for each in p]
    return sum(divergences) / 5


@pytest.mark.parametrize("whose", ["own", "gold"])
def test_it_is_the_mean_divergence_over_five_shares_of_the_words(tiny_policy, whose):
    rollouts = batch(tiny_policy, TEXTS, CORRECT)
    values = CausalImportanceReward(answer=whose)(rollouts, tiny_policy)
    expected = [cir(tiny_policy, rollout, whose) for rollout in rollouts.rollouts]
    assert [math.isnan(v) for v in expected] == [False, True, False, False, True, False] and expected[3] == 0
    assert values.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-14, nan_ok=True)
    assert max(v for v in expected if not math.isnan(v)) > 1e-10
    assert not values.requires_grad and all(p.grad is None for p in tiny_policy.parameters())


def test_abstaining_is_worth_nothing_and_a_gate_keeps_wrong_answers_out(tiny_policy):
    rollouts = batch(tiny_policy, TEXTS, CORRECT)
    each = [cir(tiny_policy, rollout, "own") for rollout in rollouts.rollouts]
    each = [0.0 if math.isnan(value) else 1e8 * value for value in each]
    total = score({"cir": CausalImportanceReward(1e8)}, rollouts, tiny_policy).total.tolist()
    assert total == pytest.approx(each, rel=1e-4)
    gated = CausalImportanceReward(1e8, only_where=Gate("outcome"))
    total = score({"outcome": OutcomeReward(), "cir": gated}, rollouts, tiny_policy).total.tolist()
    assert total == pytest.approx([v if c else -1.0 for v, c in zip(each, CORRECT, strict=True)], rel=1e-4)


def test_a_batch_without_an_answer_is_no_work(tiny_policy):
    rollouts = batch(tiny_policy, ["no", "none"], [None, None])
    assert CausalImportanceReward()(rollouts, tiny_policy).isnan().all() and CausalImportanceReward.uses_policy


def test_an_answer_that_is_none():
    with pytest.raises(UserError, match="CausalImportanceReward: answer is 'both'; choose one of own, gold"):
        CausalImportanceReward(answer="both")
