import math
from contextlib import nullcontext

import pytest
import torch
from probe_reference import Case, Reference, reward, strengthen
from probed_texts import STEPS, TEXTS, probe, rollouts
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from atmanrl.errors import UserError
from atmanrl.probe import (
    AdaptiveSolver,
    GradientAtStart,
    IntegratedGradients,
    MaskProbe,
    PaperSolver,
    ProbeError,
    Solver,
    Suppression,
)
from atmanrl.probe.attention import _BIAS
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import RolloutBatch


@pytest.fixture
def policy(tiny_policy):
    strengthen(tiny_policy.model, 5.0)
    return tiny_policy


def found_state(model) -> dict:
    return {
        "flags": [(name, p.requires_grad) for name, p in model.named_parameters()],
        "grads": [p.grad for p in model.parameters()],
        "weights": [p.detach().clone().tolist() for p in model.parameters()],
        "modes": [(name, m.training) for name, m in model.named_modules()],
        "hooks": [(name, len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()],
        "attention": [m.config._attn_implementation for m in model.modules() if hasattr(m, "config")],
        "registry": {name: id(f) for name, f in ALL_MASK_ATTENTION_FUNCTIONS.items()},
        "bias": _BIAS.get(),
    }


class Failing(Solver):
    def solve(self, objective, init_value):
        objective.evaluate(self.initial(objective, init_value), torch.arange(len(objective.targets)))
        raise RuntimeError("no solution")


def fail_under_a_bias(*_) -> None:
    if _BIAS.get() is not None:
        raise RuntimeError("in the middle of a forward pass")


def test_equals_the_reference(policy):
    """Text in, rewards and saliency out; transformers rounds parts of a float64 forward pass to float32."""
    batch = RolloutBatch(rollouts(policy), 1)
    result = probe(keep_masks=True).solve(policy, batch)
    reference = Reference(policy.model)
    for k, rollout in enumerate(batch.rollouts):
        t = target(rollout, policy.tokenizer)
        case = Case(t.prompt_ids, t.cot_ids, t.delimiter_ids, t.answer_ids)
        start = torch.full((len(case.entries),), -0.4, dtype=torch.float64)
        values = reference.solve(case, STEPS, lr=1e-2)
        assert float(result.reward[k]) == pytest.approx(reward(values), abs=1e-4)
        assert float(result.loss_initial[k]) == pytest.approx(float(reference.loss(case, start)), abs=1e-5)
        assert float(result.loss_final[k]) == pytest.approx(float(reference.loss(case, values)), abs=1e-4)
        assert result.masks[k].shape == (t.rows, len(t.cot_ids))
        for v, token in enumerate(result.saliency[k]):
            column = [x for x, entry in zip(values.tolist(), case.entries, strict=True) if entry[1] == v]
            assert token == pytest.approx(reward(torch.tensor(column)), abs=1e-3)
    assert result.reward.std() > 0.01
    assert result.gradients.tolist() == [STEPS] * len(batch)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("ending", ["well", "raises", "raises_midway"])
def test_leaves_the_model_as_found(policy, ending, attention):
    model = policy.model
    model.set_attn_implementation("sdpa" if attention == "eager" else "eager")
    model.train()
    model.model.layers[0].eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp" in name)
    if ending == "raises_midway":
        model.model.layers[1].register_forward_hook(fail_under_a_bias)
    before = found_state(model)
    assert len(set(dict(before["flags"]).values())) == len(set(dict(before["modes"]).values())) == 2
    module = probe(attention=attention)
    if ending == "raises":
        module.solver = Failing()
    with nullcontext() if ending == "well" else pytest.raises(RuntimeError, match="solution|forward pass"):
        module.solve(policy, RolloutBatch(rollouts(policy), 1))
    assert found_state(model) == before
    assert not list(module.parameters())


def test_rollouts_without_reasoning_have_no_saliency(policy):
    none, empty, blank = (("2 + 2?", said, "4") for said in (" that is 4", "##### 4", "  ##### 4"))
    texts = [none, TEXTS[0], empty, blank, TEXTS[2]]
    result = probe(keep_masks=True).solve(policy, RolloutBatch(rollouts(policy, texts), 1))
    some = probe().solve(policy, RolloutBatch(rollouts(policy, [TEXTS[0], TEXTS[2]]), 1))
    valid = [False, True, False, False, True]
    for values in (result.reward, result.loss_initial, result.loss_final):
        assert (~values.isnan()).tolist() == valid
    torch.testing.assert_close(result.reward[torch.tensor(valid)], some.reward)
    assert [s is not None for s in result.saliency] == [m is not None for m in result.masks] == valid
    assert result.gradients.tolist() == [0, STEPS, 0, 0, STEPS]
    assert result.metrics()["probe/gradients"] == STEPS
    assert result.metrics()["probe/loss_final"] == pytest.approx(some.metrics()["probe/loss_final"])
    nothing = probe().solve(policy, RolloutBatch(rollouts(policy, texts[2:4]), 1))
    assert nothing.reward.isnan().all()
    assert nothing.saliency == [None, None]


ALIKE = [{"batch_tokens": 1}, {"batch_tokens": 50}, {"cache_prompts": False}, {"attention": "sdpa"}]


@pytest.mark.parametrize("options", ALIKE)
def test_padding_and_order_change_nothing(policy, options):
    made = rollouts(policy)
    whole = probe().solve(policy, RolloutBatch(made, 1))
    order = [2, 0, 3, 1]
    result = probe(**options).solve(policy, RolloutBatch([made[i] for i in order], 1))
    torch.testing.assert_close(result.reward, whole.reward[order], rtol=0, atol=2e-5)
    for k, i in enumerate(order):
        assert result.saliency[k] == pytest.approx(whole.saliency[i], abs=5e-4)
        alone = probe(**options).solve(policy, RolloutBatch([made[i]], 1))
        torch.testing.assert_close(alone.reward[0], whole.reward[i], rtol=0, atol=2e-5)


def test_options(policy):
    batch = RolloutBatch(rollouts(policy), 1)
    plain = probe().solve(policy, batch)
    assert plain.masks == [None] * 4
    kept = probe(keep_masks=True).solve(policy, batch)
    for mask, rollout in zip(kept.masks, batch.rollouts, strict=True):
        assert mask.shape == (target(rollout, policy.tokenizer).rows, rollout.parts.cot_length)
    printed = probe(orientation="printed").solve(policy, batch)
    torch.testing.assert_close(printed.reward, 1 - plain.reward)
    with_eos = probe(include_eos=True, keep_masks=True).solve(policy, batch)
    for longer, mask in zip(with_eos.masks, kept.masks, strict=True):
        assert longer.shape == (mask.shape[0] + 1, mask.shape[1])
    assert ((with_eos.loss_initial - plain.loss_initial).abs() > 1e-3).all()
    assert isinstance(MaskProbe().solver, PaperSolver)
    assert isinstance(MaskProbe(solver="adaptive").solver, AdaptiveSolver)


def test_refusals(policy, monkeypatch):
    for wrong in ({"init_value": 0.0}, {"init_value": 0.4}, {"scale": 0}, {"batch_tokens": 0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            MaskProbe(**wrong)
    with pytest.raises(UserError, match="policy"):
        MaskProbe().configure_model()
    batch = RolloutBatch(rollouts(policy), 1)
    longest = max(len(r.prompt_ids) + target(r, policy.tokenizer).rows for r in batch.rollouts)
    policy.model.config.max_position_embeddings = longest
    probe().solve(policy, batch)
    policy.model.config.max_position_embeddings = longest - 1
    with pytest.raises(ProbeError, match=f"{longest} tokens exceed"):
        probe().solve(policy, batch)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_works_where_gradients_are_off(policy, context):
    batch = RolloutBatch(rollouts(policy), 1)
    expected = probe().solve(policy, batch)
    with context():
        result = probe().solve(policy, batch)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(result.reward, expected.reward, rtol=0, atol=0)
    assert result.saliency == expected.saliency
    assert not result.reward.requires_grad


@pytest.mark.parametrize("attribution", [Suppression(), GradientAtStart(), IntegratedGradients(4)])
def test_an_attribution_takes_the_masks_place(policy, attribution):
    batch = RolloutBatch(rollouts(policy), 1)
    found = MaskProbe(attribution=attribution, keep_masks=True).solve(policy, batch)
    for saliency, mean in zip(found.saliency, found.reward.tolist(), strict=True):
        assert mean == pytest.approx(sum(saliency) / len(saliency), abs=1e-7)
    assert found.masks == [None] * len(batch) and found.losses == [[] for _ in batch.rollouts]
    assert (found.loss_initial != found.loss_final).all()
    figures = found.metrics()
    assert figures["probe/gradients"] == float(found.gradients.float().mean()) and not math.isnan(
        figures["probe/seconds"]
    )


def test_an_attribution_that_has_no_such_shape_is_refused():
    with pytest.raises(UserError, match="Suppression is not defined for the mask's shape 'cot_rows'"):
        MaskProbe(attribution=Suppression(), shape="cot_rows")


@pytest.mark.parametrize(
    "wrong", [{"solver": "fast"}, {"orientation": "up"}, {"shape": "round"}, {"attention": "flash"}]
)
def test_unknown_names_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(UserError, match=rf"{name} {value!r} is unknown \(in YAML, probe.{name}\); choose one of"):
        MaskProbe(**wrong)


@pytest.mark.parametrize("attribution", [None, GradientAtStart()])
def test_rollouts_that_are_alike_are_solved_once(policy, monkeypatch, attribution):
    """The third and the fourth repeat the first up to the gold answer, which is what is probed; the last has another."""
    prompt, said, gold = TEXTS[0]
    texts = [TEXTS[0], TEXTS[3], TEXTS[0], (prompt, said.replace("##### 7", "##### 9"), gold), (prompt, said, "8")]
    batch = RolloutBatch(rollouts(policy, texts), 5)
    sizes = []
    monkeypatch.setattr(
        "atmanrl.probe.module.Objective",
        lambda model, targets, *a: sizes.append(len(targets)) or Objective(model, targets, *a),
    )
    found = probe(keep_masks=True, attribution=attribution).solve(policy, batch)
    assert sizes == [3]
    for i in range(5):
        alone = probe(keep_masks=True, attribution=attribution).solve(policy, RolloutBatch([batch.rollouts[i]], 1))
        torch.testing.assert_close(found.reward[i], alone.reward[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(found.loss_final[i], alone.loss_final[0], rtol=0, atol=1e-5)
        assert found.saliency[i] == pytest.approx(alone.saliency[0], abs=1e-5)
        assert found.gradients[i] == alone.gradients[0] > 0
        assert (found.masks[i] is None) == (attribution is not None)
    assert len(set(found.reward.tolist())) == 3


def test_targets_are_probed_without_rollouts(policy):
    """Token ids alone, in any order and some of them twice, give what their rollouts give."""
    batch = RolloutBatch(rollouts(policy), 1)
    expected = probe(keep_masks=True).solve(policy, batch)
    targets = [target(rollout, policy.tokenizer) for rollout in batch.rollouts]
    order = [2, 0, 0, 3, 1]
    with torch.inference_mode():
        result = probe(keep_masks=True).solve_targets(policy, [targets[k] for k in order])
    torch.testing.assert_close(result.reward, expected.reward[order], rtol=0, atol=1e-6)
    assert result.gradients.tolist() == [STEPS] * 5 and not result.reward.is_inference()
    for place, k in enumerate(order):
        assert result.saliency[place] == pytest.approx(expected.saliency[k], abs=1e-5)
        assert result.masks[place].shape == expected.masks[k].shape
    assert result.saliency[1] == result.saliency[2] and result.saliency[1] is not result.saliency[2]
    assert probe().solve_targets(policy, []).reward.tolist() == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (((5,), (6, 7), (8,), ()), "target 1: the answer has no token"),
        (((5,), (), (8,), (9,)), "target 1: the reasoning has no token"),
        (((5,), (6, 9999), (8,), (9,)), "target 1: token 9999 is beyond the model's vocabulary of 768"),
        (((5,), (6,) * 1024, (8,), (9,)), "target 1: 1027 tokens exceed the model's context of 1024"),
    ],
)
def test_targets_that_cannot_be_probed_are_refused_by_their_number(policy, ids, message):
    with pytest.raises(ProbeError, match=message):
        probe().solve_targets(policy, [Target((5,), (6, 7), (8,), (9,)), Target(*ids)])
