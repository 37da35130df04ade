"""Masks of every shape, optimized by AdamW, against the float64 reference with the restricted mask."""

from dataclasses import dataclass, replace

import pytest
import torch
from probe_reference import Case, Exact, Reference, cases, reward, strengthen

from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.probe.attention import attention_hook
from atmanrl.probe.mask import saliency_reward
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import Completion, Rollout, RolloutBatch, split
from atmanrl.tasks import Problem

SIZES = [(3, 1, 1, 1), (9, 6, 2, 2), (6, 4, 1, 3)]
MASKS = ["full", "column", "cot_rows", "answer_rows"]
STEPS, LR, C = 20, 1e-2, -0.4
SOLVERS = {
    "paper": lambda steps: PaperSolver(steps=steps, lr=LR),
    "adaptive": lambda steps: AdaptiveSolver(steps=steps, lr=LR, first_interval=1, max_interval=1),
}


@pytest.fixture(autouse=True)
def exact():
    with Exact():
        yield


@pytest.fixture(scope="module")
def model(tiny_folder):
    with Exact():
        found = Policy(str(tiny_folder), dtype="float64").build().model.eval()
        strengthen(found, 5.0)
        yield found


@dataclass
class Expected:
    """Rollouts with masks of one shape, the reference, and what it finds."""

    reference: Reference
    rollouts: list[Case]
    values: list[torch.Tensor]


@pytest.fixture(scope="module", params=MASKS)
def expected(request, model) -> Expected:
    with Exact():
        reference = Reference(model)
        made = [reference.answered(case) for case in cases(SIZES, model.config.vocab_size)]
        made = [replace(case, shape=request.param) for case in made]
        return Expected(reference, made, [reference.solve(case, STEPS, lr=LR, c=C) for case in made])


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers_equal_the_reference(model, expected, solver):
    rollouts, reference = expected.rollouts, expected.reference
    targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in rollouts]
    with frozen(model), attention_hook(model, "sdpa"):
        objective = Objective(model, targets, 10.0, 0, 30, shape=rollouts[0].shape)
        solution = SOLVERS[solver](STEPS).solve(objective, C)
        every_row = torch.arange(len(rollouts))
        final = objective.loss(solution.values)
    parts = torch.split(solution.values, [len(case.groups) for case in rollouts])
    dense = objective.entries.dense(solution.values, every_row)
    for k, (case, values) in enumerate(zip(rollouts, expected.values, strict=True)):
        assert (values - C).abs().max() > 0.05
        torch.testing.assert_close(parts[k], values, rtol=0, atol=1e-7)
        height, width = len(case.tail), len(case.cot)
        torch.testing.assert_close(dense[k, :height, :width], case.dense(values), rtol=0, atol=1e-7)
        assert (dense[k, height:] == 0).all() and (dense[k, :, width:] == 0).all()
        start = torch.full_like(values, C)
        assert float(solution.loss_initial[k]) == pytest.approx(float(reference.loss(case, start)), rel=1e-10)
        assert float(final[k]) == pytest.approx(float(reference.loss(case, values)), rel=1e-6)
    for orientation in ("restored", "printed"):
        found = saliency_reward(solution.values, objective.entries.ragged, C, orientation)
        wanted = [reward(values, C, orientation) for values in expected.values]
        assert found.tolist() == pytest.approx(wanted, abs=1e-7)


TEXTS = [(" 3 + 4 = 7. #####", "7"), (" two and two, that is 4.\n#####", "4"), (" so ##### 12", "12")]


@pytest.fixture
def doubles():
    """Results are made in the default precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("orientation", ["restored", "printed"])
@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.usefixtures("doubles")
def test_a_probe_equals_the_reference(tiny_policy, shape, orientation):
    """A token's saliency is the mean over the entries of its column: in every shape each column has some."""
    strengthen(tiny_policy.model, 5.0)
    tokenizer, made = tiny_policy.tokenizer, []
    for row, (said, gold) in enumerate(TEXTS):
        ids = tokenizer(said, add_special_tokens=False).input_ids
        problem, prompt = Problem(f"p/{row}", "2 + 2?", gold), tiny_policy.encode_prompt("2 + 2?")
        completion = Completion(ids, [0.0] * len(ids), True)
        made.append(Rollout(problem, row, 0, problem.question, prompt, completion, split(tokenizer, ids)))
    probe = MaskProbe(solver=PaperSolver(steps=8, lr=LR), shape=shape, orientation=orientation, keep_masks=True)
    result = probe.solve(tiny_policy, RolloutBatch(made, 1))
    reference = Reference(tiny_policy.model)
    for k, rollout in enumerate(made):
        t = target(rollout, tokenizer)
        case = Case(t.prompt_ids, t.cot_ids, t.delimiter_ids, t.answer_ids, shape)
        values = reference.solve(case, 8, lr=LR, c=C)
        start = torch.full_like(values, C)
        dense = case.dense(values)
        torch.testing.assert_close(result.masks[k], dense, rtol=0, atol=1e-7)
        assert float(result.reward[k]) == pytest.approx(reward(values, C, orientation), abs=1e-7)
        assert float(result.loss_initial[k]) == pytest.approx(float(reference.loss(case, start)), rel=1e-6)
        assert float(result.loss_final[k]) == pytest.approx(float(reference.loss(case, values)), rel=1e-6)
        columns = [dense[case.column(v) == 1] for v in range(len(t.cot_ids))]
        assert all(len(column) for column in columns)
        assert result.saliency[k] == pytest.approx([reward(column, C, orientation) for column in columns], abs=1e-7)
