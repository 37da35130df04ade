"""Measures that optimize no mask, against the float64 reference: slopes by differences, integrals by Boole's rule."""

from dataclasses import replace

import pytest
import torch
from probe_reference import Case, Exact, Reference, cases, strengthen

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe.attention import ProbeError, attention_hook
from atmanrl.probe.attributions import GradientAtStart, IntegratedGradients, Suppression
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target

SIZES = [(3, 1, 1, 1), (9, 6, 2, 2), (3, 4, 1, 3), (6, 9, 1, 1)]
MASKS = ["full", "column", "cot_rows", "answer_rows"]
GRADIENTS = [GradientAtStart(), IntegratedGradients(5)]
MEASURES = [Suppression(), *GRADIENTS]
C = -0.4


@pytest.fixture(scope="module")
def model(tiny_folder):
    with Exact():
        found = Policy(str(tiny_folder), dtype="float64").build().model.eval()
        strengthen(found, 5.0)
        with frozen(found), attention_hook(found, "eager"):
            yield found


@pytest.fixture(scope="module")
def rollouts(model) -> list[Case]:
    reference = Reference(model)
    return [reference.answered(case) for case in cases(SIZES, model.config.vocab_size)]


@pytest.fixture(autouse=True)
def exact():
    with Exact():
        yield


def objective(model, rollouts: list[Case], shape: str = "full", batch_tokens: int = 1024) -> Objective:
    targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in rollouts]
    return Objective(model, targets, 10.0, 0, batch_tokens, shape=shape)


def check(found, model, rollouts: list[Case], expected, ends: tuple[float, float], atol: float = 1e-9) -> None:
    """Tokens and their means against those expected, losses against those with all entries at the two `ends`."""
    reference = Reference(model)
    for k, case in enumerate(rollouts):
        wanted = torch.tensor(expected(reference, case), dtype=torch.float64)
        torch.testing.assert_close(found.tokens[k], wanted, rtol=1e-7, atol=atol)
        assert found.tokens[k].shape == (len(case.cot),)
        assert wanted.abs().max() > 1e-3
        assert float(found.reward[k]) == pytest.approx(float(wanted.mean()), rel=1e-7, abs=atol)
        for loss, value in zip((found.loss_initial[k], found.loss_final[k]), ends, strict=True):
            values = torch.full((len(case.groups),), value, dtype=torch.float64)
            assert float(loss) == pytest.approx(float(reference.loss(case, values)), rel=1e-10)


@pytest.mark.parametrize("shape", ["full", "column"])
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_suppression_equals_the_reference(model, rollouts, factor, shape):
    found = Suppression(factor).attribute(objective(model, rollouts, shape), C)
    check(found, model, rollouts, lambda reference, case: reference.suppression(case, factor * C), (0, factor * C))
    assert found.gradients.tolist() == [0] * len(rollouts)
    assert found.evaluations.tolist() == [len(case.cot) + 2 for case in rollouts]


@pytest.mark.parametrize("shape", MASKS)
def test_gradient_at_start_equals_the_reference(model, rollouts, shape):
    found = GradientAtStart().attribute(objective(model, rollouts, shape), C)
    shaped = [replace(case, shape=shape) for case in rollouts]
    check(found, model, shaped, lambda reference, case: reference.restoration(case, C, at=C), (C, 0), atol=1e-8)
    assert found.gradients.tolist() == [1] * len(rollouts)
    assert found.evaluations.tolist() == [2] * len(rollouts)


@pytest.mark.parametrize("shape", MASKS)
def test_integrated_gradients_equal_the_reference(model, rollouts, shape):
    """The reference walks the path in even steps: both quadratures are far better than the tolerance."""
    some = rollouts[1:3]
    found = IntegratedGradients().attribute(objective(model, some, shape), C)
    shaped = [replace(case, shape=shape) for case in some]
    check(found, model, shaped, lambda reference, case: reference.integral(case, C, 80), (C, 0), atol=1e-6)
    assert found.gradients.tolist() == [32] * len(some)
    assert found.evaluations.tolist() == [34] * len(some)


@pytest.mark.parametrize("shape", MASKS)
def test_integrated_gradients_are_complete(model, rollouts, shape):
    """The tokens add up to what all of them together take off the loss, ever better with more gradients."""
    errors = []
    for steps in (4, 16, 48):
        found = IntegratedGradients(steps).attribute(objective(model, rollouts, shape), C)
        difference = found.loss_initial - found.loss_final
        sums = torch.stack([tokens.sum() for tokens in found.tokens])
        torch.testing.assert_close(found.reward * torch.tensor([len(c.cot) for c in rollouts]), sums)
        errors.append(float((sums - difference).abs().max()))
    assert difference.abs().max() > 0.1
    assert errors[0] > 100 * errors[1]
    assert errors[2] < 1e-12


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_a_column_mask_gives_the_full_masks_saliencies(model, rollouts, measure):
    found = [measure.attribute(objective(model, rollouts, shape), C).tokens for shape in ("full", "column")]
    torch.testing.assert_close(torch.cat(found[0]), torch.cat(found[1]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_company_and_budget_change_nothing(model, rollouts, measure):
    whole = measure.attribute(objective(model, rollouts), C)
    for rows in ([2], [3, 0], [1, 3, 1, 2]):
        for budget in (1, 40):
            found = measure.attribute(objective(model, [rollouts[k] for k in rows], batch_tokens=budget), C)
            for place, k in enumerate(rows):
                torch.testing.assert_close(found.tokens[place], whole.tokens[k], rtol=1e-9, atol=1e-11)
            for name in ("reward", "loss_initial", "loss_final"):
                expected = getattr(whole, name)[rows]
                torch.testing.assert_close(getattr(found, name), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("budget", "most"), [(1, 1), (25, 3), (60, 6)])
def test_suppression_fills_its_passes(model, rollouts, budget, most):
    """Several tokens of several rollouts in one pass, never more than the budget allows."""
    found, passes = objective(model, rollouts, batch_tokens=budget), []
    plain = Suppression().attribute(found, C)
    handle = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    again = Suppression().attribute(found, C)
    handle.remove()
    torch.testing.assert_close(torch.cat(again.tokens), torch.cat(plain.tokens), rtol=0, atol=0)
    assert sum(rows for rows, _ in passes) == sum(len(c.cot) + 2 for c in rollouts) + 1
    assert all(rows == 1 or rows * (width + 1) <= budget for rows, width in passes)  # the last token is not computed
    assert max(rows for rows, _ in passes) == most


def test_suppression_wants_whole_columns(model, rollouts):
    for shape in ("cot_rows", "answer_rows"):
        with pytest.raises(UserError, match=f"Suppression is not defined for the mask's shape '{shape}'.*full, column"):
            Suppression().attribute(objective(model, rollouts, shape), C)
    for measure in GRADIENTS:
        for shape in MASKS:
            measure.check(shape)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: type(m).__name__)
def test_a_model_that_ignores_the_bias_is_refused(tiny_policy, rollouts, measure):
    with frozen(tiny_policy.model), pytest.raises(ProbeError, match="ignores the attention bias"):
        measure.attribute(objective(tiny_policy.model, rollouts[:2]), C)


@pytest.mark.parametrize(
    ("measure", "wrong"),
    [(Suppression, {"factor": 0}), (Suppression, {"factor": -1.0}), (Suppression, {"factor": float("nan")})]
    + [(Suppression, {"factor": float("inf")}), (IntegratedGradients, {"steps": 0})],
)
def test_invalid_options(measure, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        measure(**wrong)
