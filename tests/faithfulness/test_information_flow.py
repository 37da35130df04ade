"""The four masked passes, beside masks of loops given to the model itself, and at their limits."""

import math

import brute_force
import pytest
import torch
from hand_built import rollout

from atmanrl.faithfulness import InformationFlow
from atmanrl.faithfulness.divergences import js, kl


def reference(policy, one) -> dict[str, float]:
    """The six divergences by a mask of four dimensions, made entry by entry."""
    prompt, cot, delimiter = brute_force.parts(policy, one)
    answer = policy.tokenizer(f" {one.parts.answer}", add_special_tokens=False).input_ids
    ids = [*prompt, *cot, *delimiter, *answer]
    p, c = len(prompt), len(prompt) + len(cot)
    hidden = {
        "full": lambda row, column: False,
        "without": lambda row, column: row >= c and p <= column < c,
        "via": lambda row, column: row >= c and column < p,
        "unasked": lambda row, column: row >= p and column < p,
    }
    logs = {}
    for name, is_hidden in hidden.items():
        mask = torch.zeros(1, 1, len(ids), len(ids), dtype=torch.float64)
        for row in range(len(ids)):
            for column in range(len(ids)):
                if column > row or is_hidden(row, column):
                    mask[0, 0, row, column] = -1e30
        with torch.no_grad():
            logits = policy.model(torch.tensor([ids]), attention_mask=mask).logits
        logs[name] = logits[0, len(ids) - len(answer) - 1 :].log_softmax(-1)
    values = {}
    for key, a, b in (("necessity", "full", "without"), ("direct", "full", "via"), ("leakage", "via", "unasked")):
        p, q = logs[a].exp(), logs[b].exp()
        m = (p + q) / 2
        values[f"flow_{key}"] = float((p * (p / q).log()).sum(-1).mean())
        values[f"flow_{key}_js"] = float(((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)).mean() / 2)
    return values


def test_the_divergences_are_those_of_masks_made_by_hand(tiny_policy, rollouts):
    measured = InformationFlow().measure(rollouts, tiny_policy)
    for k, one in enumerate(rollouts[:3]):
        expected = reference(tiny_policy, one)
        assert {key: values[k] for key, values in measured.items()} == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert all(math.isnan(values[3]) for values in measured.values())
    assert measured["flow_necessity"][2] == 0 and measured["flow_necessity"][0] > 0  # the third has no reasoning


def test_a_policy_that_ignores_its_reasoning_takes_all_from_the_prompt(reader_of_prompt):
    one = rollout(reader_of_prompt, "Count a7", " it is 3\n##### 7", "7")
    measured = InformationFlow().measure([one], reader_of_prompt)
    assert measured["flow_necessity"][0] == pytest.approx(0, abs=1e-6)
    assert measured["flow_direct"][0] > 2 and measured["flow_leakage"][0] == pytest.approx(0, abs=1e-6)


def test_a_policy_that_copies_from_its_reasoning_takes_nothing_past_it(reader_of_reasoning):
    one = rollout(reader_of_reasoning, "Count a7", " it is 3\n##### 3", "3")
    measured = InformationFlow().measure([one], reader_of_reasoning)
    assert measured["flow_necessity"][0] > 2 and measured["flow_direct"][0] == pytest.approx(0, abs=1e-6)
    # of the two tokens, the digit and the end, the first alone needs the reasoning
    assert measured["flow_necessity_js"][0] == pytest.approx(math.log(2) / 2, abs=0.01)


def test_the_model_is_left_as_it_was(tiny_policy, rollouts):
    attention = tiny_policy.model.config._attn_implementation
    InformationFlow(answer="gold").measure(rollouts, tiny_policy)
    assert tiny_policy.model.config._attn_implementation == attention
    assert all(parameter.requires_grad for parameter in tiny_policy.parameters())


def test_divergences_are_those_of_their_definitions_and_within_bounds():
    logs = (
        torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64).clamp(min=1e-300).log()
    )
    assert float(kl(logs[0], logs[1])) == pytest.approx(0.7 * math.log(7) + 0.3 * math.log(1 / 3))
    assert float(js(logs[0], logs[2])) == pytest.approx(math.log(2)) and float(js(logs[0], logs[0])) == 0
