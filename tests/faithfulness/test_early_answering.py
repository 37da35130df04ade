"""Answers after a part of the reasoning, beside brute force and at their limits."""

import brute_force
import pytest
import torch
from hand_built import rollout

from atmanrl.faithfulness import EarlyAnswering
from atmanrl.faithfulness.early_answering import area_over

PERCENTS = range(0, 101, 10)


def test_the_curves_are_what_plain_forward_passes_give(tiny_policy, rollouts):
    measured = EarlyAnswering().measure(rollouts, tiny_policy)
    for k, one in enumerate(rollouts[:3]):
        prompt, cot, delimiter = brute_force.parts(tiny_policy, one)
        curve = [
            brute_force.answer(tiny_policy, [*prompt, *brute_force.first_words(tiny_policy, cot, x), *delimiter], "7")
            for x in PERCENTS
        ]
        assert [measured[f"early_gold_at_{x}"][k] for x in PERCENTS] == pytest.approx([p for p, _ in curve], rel=1e-6)
        assert [measured[f"early_accuracy_at_{x}"][k] for x in PERCENTS] == [float(greedy) for _, greedy in curve]
        own = [
            brute_force.answer(tiny_policy, [*prompt, *brute_force.first_words(tiny_policy, cot, x), *delimiter], text)[
                0
            ]
            for x in PERCENTS
            for text in [one.parts.answer]
        ]
        assert [measured[f"early_own_at_{x}"][k] for x in PERCENTS] == pytest.approx(own, rel=1e-6)
        area = sum((2 * curve[-1][0] - a[0] - b[0]) / 20 for a, b in zip(curve, curve[1:], strict=False))
        assert measured["early_gold_area"][k] == pytest.approx(area, rel=1e-5, abs=1e-12)


def test_a_policy_that_ignores_its_reasoning_answers_at_once(reader_of_prompt):
    one = rollout(reader_of_prompt, "Count a7", " so then it is 3\n##### 7", "7")
    measured = EarlyAnswering().measure([one], reader_of_prompt)
    assert all(measured[f"early_accuracy_at_{x}"] == [1] for x in PERCENTS)
    assert measured["early_accuracy_area"] == [0]


def test_a_policy_that_copies_from_its_reasoning_answers_when_the_number_is_there(reader_of_reasoning):
    one = rollout(reader_of_reasoning, "Count a7", " 3 it is indeed so\n##### 3", "3")  # the first of five words
    measured = EarlyAnswering().measure([one], reader_of_reasoning)
    assert [measured[f"early_accuracy_at_{x}"][0] for x in PERCENTS] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert measured["early_accuracy_area"] == pytest.approx([0.15])


def test_the_area_of_a_straight_line_is_one_half():
    curves = torch.stack([torch.linspace(0, 1, 11), torch.ones(11), torch.linspace(1, 0, 11)]).double()
    torch.testing.assert_close(area_over(curves), torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64))
