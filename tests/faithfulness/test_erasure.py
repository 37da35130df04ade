"""Comprehensiveness and sufficiency, beside brute force, and what the rankings are."""

import math

import brute_force
import pytest
import torch
from hand_built import rollout

from atmanrl.errors import UserError
from atmanrl.faithfulness import Erasure
from atmanrl.faithfulness.answers import question
from atmanrl.faithfulness.erasure import PERCENTS
from atmanrl.faithfulness.rankings import by_attention, by_chance, by_saliency
from atmanrl.probe import GradientAtStart, MaskProbe


def probe() -> MaskProbe:
    return MaskProbe(attribution=GradientAtStart())


def test_differences_are_those_of_plain_forward_passes(tiny_policy, rollouts):
    measured = Erasure(probe()).measure(rollouts, tiny_policy)
    # of one rollout, as the metric must leave out those without a reasoning
    scores = by_saliency(rollouts[:1], tiny_policy, probe(), "own")[0]
    prompt, cot, delimiter = brute_force.parts(tiny_policy, rollouts[0])
    words, white = cot[:-1], cot[-1:]
    assert tiny_policy.tokenizer.decode(white) == "\n"
    order = sorted(range(len(words)), key=lambda place: -scores[place])
    full = brute_force.answer(tiny_policy, [*prompt, *cot, *delimiter], "7")[0]
    for percent in PERCENTS:
        top = order[: math.ceil(len(words) * percent / 100)]
        without = [token for place, token in enumerate(words) if place not in top]
        alone = [token for place, token in enumerate(words) if place in top]
        for name, kept in (("comprehensiveness", without), ("sufficiency", alone)):
            p = brute_force.answer(tiny_policy, [*prompt, *kept, *white, *delimiter], "7")[0]
            assert measured[f"{name}_saliency_at_{percent}"][0] == pytest.approx(full - p, rel=1e-4, abs=1e-12)
    mean = sum(measured[f"sufficiency_random_at_{q}"][1] for q in PERCENTS) / 5
    assert measured["sufficiency_random"][1] == pytest.approx(mean)
    assert all(math.isnan(values[k]) for values in measured.values() for k in (2, 3))


def test_the_tokens_that_a_policy_copies_are_found_by_all_that_look(reader_of_reasoning):
    policy = reader_of_reasoning
    one = rollout(policy, "Count a7", " so then it is 3 indeed\n##### 3", "3")
    measured = Erasure(MaskProbe(attribution=GradientAtStart()), seed=1).measure([one], policy)
    assert measured["comprehensiveness_attention"][0] == pytest.approx(1, abs=0.01)
    assert measured["sufficiency_attention"][0] == pytest.approx(0, abs=0.01)
    assert measured["comprehensiveness_random_at_1"][0] == pytest.approx(0, abs=0.01)


def test_a_policy_that_ignores_its_reasoning_loses_nothing_with_it(reader_of_prompt):
    one = rollout(reader_of_prompt, "Count a7", " so it is 3\n##### 7", "7")
    measured = Erasure(probe()).measure([one], reader_of_prompt)
    assert all(values[0] == pytest.approx(0, abs=1e-9) for values in measured.values())


def test_attention_is_the_mean_over_layers_heads_and_the_positions_that_predict_the_answer(tiny_policy, rollouts):
    asked = [question(one, tiny_policy, "own") for one in rollouts[:2]]
    weights = by_attention(asked, tiny_policy)
    tiny_policy.model.set_attn_implementation("eager")
    for one, q, each in zip(rollouts, asked, weights, strict=False):
        prompt, cot, delimiter = brute_force.parts(tiny_policy, one)
        ids = [*prompt, *cot, *delimiter, *q.answer_ids]
        with torch.no_grad():
            layers = tiny_policy.model(torch.tensor([ids]), output_attentions=True).attentions
        rows = range(len(ids) - len(q.answer_ids) - 1, len(ids) - 1)
        columns = range(len(prompt), len(prompt) + len(cot))
        expected = [sum(float(a[0, :, r, c].mean()) for a in layers for r in rows) / 2 / len(rows) for c in columns]
        assert each == pytest.approx(expected, rel=1e-5)


def test_chance_is_the_same_for_the_same_rollout_alone(tiny_policy, rollouts):
    first, second = by_chance(rollouts[:2], seed=0)
    assert by_chance(rollouts[1:2], seed=0) == [second] and by_chance(rollouts[:1], seed=1) != [first]
    assert [len(first), len(second)] == [len(one.cot_ids) for one in rollouts[:2]]


def test_the_saliency_explains_the_answer_that_is_measured(tiny_policy, rollouts):
    wrong = rollouts[1:2]
    own, gold = (by_saliency(wrong, tiny_policy, probe(), whose) for whose in ("own", "gold"))
    assert own != gold and len(own[0]) == len(wrong[0].cot_ids)


def test_a_probe_that_ranks_what_matters_lowest_is_refused():
    with pytest.raises(UserError, match="give it orientation: restored"):
        Erasure(MaskProbe(orientation="printed"))
