"""CIR and sufficiency, beside brute force and at their limits."""

import math

import brute_force
import pytest
import torch
from hand_built import rollout

from atmanrl.faithfulness import CausalImportance, CotAlone
from atmanrl.faithfulness.divergences import bernoulli_js
from atmanrl.rollouts import RolloutBatch


@pytest.mark.parametrize(("key", "whose"), [("cir", "own"), ("cir_gold", "gold")])
def test_cir_is_the_mean_divergence_over_five_shares_of_the_words(tiny_policy, rollouts, key, whose):
    measured = CausalImportance(gold=True).measure(rollouts, tiny_policy)[key]
    assert math.isnan(measured[3])
    for one, value in zip(rollouts[:3], measured, strict=False):
        prompt, cot, delimiter = brute_force.parts(tiny_policy, one)
        text = one.parts.answer if whose == "own" else one.problem.gold
        p = [
            brute_force.answer(tiny_policy, [*prompt, *brute_force.first_words(tiny_policy, cot, t), *delimiter], text)[
                0
            ]
            for t in (0, 20, 40, 60, 80, 100)
        ]
        assert value == pytest.approx(
            sum(brute_force.bernoulli_js(each, p[-1]) for each in p[:-1]) / 5, rel=1e-6, abs=1e-15
        )


def test_a_policy_that_ignores_its_reasoning_has_none_and_one_that_copies_from_it_has_nearly_ln_2(
    reader_of_prompt, reader_of_reasoning
):
    for policy, digit, expected in ((reader_of_prompt, 7, 0), (reader_of_reasoning, 3, math.log(2))):
        one = rollout(policy, "Count a7", f" it is 3\n##### {digit}", "3")
        assert CausalImportance().measure([one], policy)["cir"] == pytest.approx([expected], abs=0.02)


def test_the_metric_is_the_mean_over_rollouts_and_over_batches(tiny_policy, rollouts):
    metric = CausalImportance()
    each = metric.measure(rollouts, tiny_policy)["cir"]
    for part in (rollouts[:1], rollouts[1:]):
        metric.update(RolloutBatch(part, 1), tiny_policy)
    assert float(metric.compute()["cir"]) == pytest.approx(sum(each[:3]) / 3, rel=1e-5)
    metric.reset()
    metric.update(RolloutBatch(rollouts[3:], 1), tiny_policy)
    assert math.isnan(metric.compute()["cir"])


def test_the_reasoning_alone_is_enough_for_a_policy_that_copies_from_it(reader_of_prompt, reader_of_reasoning):
    for policy, digit, expected in ((reader_of_prompt, 7, 0), (reader_of_reasoning, 3, 1)):
        one = rollout(policy, "Count a7", f" it is 3\n##### {digit}", str(digit))
        assert CotAlone().measure([one], policy) == {
            "cot_alone_accuracy": [expected],
            "cot_alone_agreement": [expected],
        }


def test_agreement_without_the_question_is_not_asked_of_an_answer_that_is_not_greedy(reader_of_reasoning):
    one = rollout(reader_of_reasoning, "Count a7", " it is 3\n##### 4", "3")
    measured = CotAlone().measure([one], reader_of_reasoning)
    assert measured["cot_alone_accuracy"] == [1] and math.isnan(measured["cot_alone_agreement"][0])


def test_the_instruction_stays_where_the_question_goes(tiny_policy, rollouts, monkeypatch):
    prompts = []
    monkeypatch.setattr(tiny_policy.encoder, "prompts", lambda texts: prompts.extend(texts) or [[5, 6]])
    rollouts[0].prompt += "\n\nReason step by step."
    CotAlone().measure(rollouts[:2], tiny_policy)
    assert prompts == ["Reason step by step.", ""]


def test_the_divergence_of_two_bernoullis_stays_finite_from_0_to_ln_2():
    logs = torch.tensor([-torch.inf, -800.0, -1.0, -1e-12, 0.0], dtype=torch.float64)
    table = bernoulli_js(logs[:, None], logs[None])
    assert torch.isfinite(table).all() and (table >= 0).all() and (table <= math.log(2) + 1e-12).all()
    assert table[0, -1] == pytest.approx(math.log(2)) and (table.diagonal() == 0).all()
    expected = [[brute_force.bernoulli_js(p, q) for q in logs.exp().tolist()] for p in logs.exp().tolist()]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
