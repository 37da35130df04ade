import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from probe_reference import Exact, Reference, cases, reward, strengthen

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, PaperSolver, Solver
from atmanrl.probe.attention import attention_hook
from atmanrl.probe.mask import saliency_reward
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Evaluation, Objective
from atmanrl.probe.ragged import Ragged
from atmanrl.probe.solvers import Solution
from atmanrl.probe.solvers.extrapolation import GradientSample, TurnPredictor, extrapolate
from atmanrl.probe.target import Target

SHAPES = [(3, 2, 1, 1), (9, 6, 2, 2), (6, 9, 1, 1), (9, 5, 3, 3)]
C = -0.4


class Learnable:
    """A policy and rollouts whose answers become far likelier as the mask is lifted."""

    def __init__(self, folder) -> None:
        self.model = Policy(str(folder), dtype="float64").build().model.eval()
        strengthen(self.model, 6.0)
        self.reference = Reference(self.model)
        self.rollouts = [self.reference.answered(c) for c in cases(SHAPES, self.model.config.vocab_size)]
        self.objective = self.of(range(len(SHAPES)))

    def of(self, rows) -> Objective:
        chosen = [self.rollouts[i] for i in rows]
        targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in chosen]
        return Objective(self.model, targets, 10.0, 0, 1024)

    def rewards(self, solution: Solution) -> torch.Tensor:
        return saliency_reward(solution.values, self.objective.entries.ragged, C, "restored")

    def split(self, solution: Solution) -> tuple[torch.Tensor, ...]:
        return solution.values.split([len(case.entries) for case in self.rollouts])


@pytest.fixture(scope="module")
def learnable(tiny_folder):
    with Exact():
        found = Learnable(tiny_folder)
        with frozen(found.model), attention_hook(found.model, "sdpa"):
            yield found


@pytest.fixture(scope="module")
def papers(learnable) -> Solution:
    """All 200 steps."""
    return PaperSolver().solve(learnable.objective, C)


@pytest.fixture(scope="module")
def papers80(learnable) -> Solution:
    """The first 80 of them."""
    return PaperSolver(steps=80).solve(learnable.objective, C)


def rms(a: Solution, b: Solution) -> float:
    return float((a.values - b.values).square().mean().sqrt())


@pytest.mark.parametrize("options", [{}, {"lr": 0.02, "betas": (0.9, 0.99), "weight_decay": 0.5, "eps": 1e-3}])
def test_paper_solver_is_adamw(learnable, options):
    found = PaperSolver(steps=25, **options).solve(learnable.objective, C)
    rewards = learnable.rewards(found)
    renamed = {"decay" if name == "weight_decay" else name: value for name, value in options.items()}
    for k, case in enumerate(learnable.rollouts):
        expected = learnable.reference.solve(case, 25, c=C, **renamed)
        assert (expected - C).abs().max() > 0.01
        torch.testing.assert_close(learnable.split(found)[k], expected, rtol=0, atol=1e-8)
        assert float(rewards[k]) == pytest.approx(reward(expected, C), abs=1e-8)
        start = torch.full((len(case.entries),), C, dtype=torch.float64)
        assert float(found.loss_initial[k]) == pytest.approx(float(learnable.reference.loss(case, start)), rel=1e-10)
    assert found.gradients.tolist() == [25] * len(SHAPES)


@pytest.mark.parametrize("solver", [PaperSolver, AdaptiveSolver])
def test_sparsity_is_a_price_on_what_is_restored(learnable, solver):
    """Some values come above 0, where there is nothing to pay any more."""
    options = {"max_interval": 1, "first_interval": 1} if solver is AdaptiveSolver else {}
    found = solver(steps=25, lr=0.05, sparsity=2.0, **options).solve(learnable.objective, C)
    free = solver(steps=25, lr=0.05, **options).solve(learnable.objective, C)
    for case, values in zip(learnable.rollouts, learnable.split(found), strict=True):
        expected = learnable.reference.solve(case, 25, lr=0.05, c=C, sparsity=2.0)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-7)
    assert (found.values > 0).any()
    assert (learnable.rewards(found) < learnable.rewards(free) - 0.05).all()


@pytest.mark.parametrize("sparsity", [0.3, 3.0])
def test_adaptive_solver_follows_the_papers_with_sparsity(learnable, sparsity):
    exact = PaperSolver(steps=80, sparsity=sparsity).solve(learnable.objective, C)
    found = AdaptiveSolver(0.0005, steps=80, sparsity=sparsity).solve(learnable.objective, C)
    assert rms(found, exact) < 1e-3 and found.gradients.max() < 80


@pytest.mark.parametrize("solver", [PaperSolver, AdaptiveSolver])
def test_share_of_gradients_below_epsilon(learnable, solver):
    """Over the first two steps, in which both solvers take a gradient each."""
    options = {"max_interval": 1, "first_interval": 1} if solver is AdaptiveSolver else {}
    found = solver(steps=2, eps=2e-3, **options).solve(learnable.objective, C)
    small, total = 0, 0
    for case in learnable.rollouts:
        for steps in (0, 1):
            _, gradient = learnable.reference.gradient(case, learnable.reference.solve(case, steps, c=C, eps=2e-3))
            small, total = small + int((gradient.abs() < 2e-3).sum()), total + len(gradient)
    assert 0.1 < small / total < 0.9
    assert found.below_epsilon == pytest.approx(small / total)


def test_there_is_something_to_learn(learnable, papers):
    final = learnable.objective.loss(papers.values)
    assert (final < 0.85 * papers.loss_initial).all()
    assert float(learnable.rewards(papers).std()) > 0.05


def test_adaptive_solver_needs_few_gradients(learnable, papers):
    """At the default tolerance: rewards to 0.002 (of a spread above 0.05), masks to 0.004, under half the gradients."""
    found = AdaptiveSolver().solve(learnable.objective, C)
    assert (learnable.rewards(found) - learnable.rewards(papers)).abs().max() < 2e-3
    assert rms(found, papers) < 4e-3
    assert found.gradients.max() < 100
    torch.testing.assert_close(found.loss_initial, papers.loss_initial, rtol=0, atol=0)


def test_adaptive_solver_converges_to_the_papers_masks(learnable, papers80):
    solutions = [AdaptiveSolver(t, steps=80).solve(learnable.objective, C) for t in (0.02, 0.001, 0.00001)]
    errors = [rms(s, papers80) for s in solutions]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-5
    counts = [int(s.gradients.sum()) for s in solutions]
    assert counts[0] < counts[1] < counts[2] <= 80 * len(SHAPES)


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_adaptive_solver_with_intervals_of_one_is_the_papers(learnable, steps):
    found = AdaptiveSolver(steps=steps, first_interval=1, max_interval=1).solve(learnable.objective, C)
    torch.testing.assert_close(
        found.values, PaperSolver(steps=steps).solve(learnable.objective, C).values, rtol=0, atol=1e-9
    )
    assert found.gradients.tolist() == [steps] * len(SHAPES)


@pytest.mark.parametrize("interval", [7, 50])
def test_adaptive_solver_takes_exactly_its_steps(learnable, interval):
    """Weight decay alone moves the last row, which has no gradient: it counts the steps."""
    found = AdaptiveSolver(steps=50, first_interval=interval, max_interval=interval).solve(learnable.objective, C)
    for case, values in zip(learnable.rollouts, learnable.split(found), strict=True):
        last = values[-len(case.cot) :]
        torch.testing.assert_close(last, torch.full_like(last, C * (1 - 1e-3 * 0.05) ** 50), rtol=1e-12, atol=0)


def test_each_rollout_goes_its_own_way(learnable):
    solver = AdaptiveSolver(steps=60)
    together = solver.solve(learnable.objective, C)
    assert len(set(together.gradients.tolist())) > 1
    for k in range(len(SHAPES)):
        alone = solver.solve(learnable.of([k]), C)
        torch.testing.assert_close(alone.values, learnable.split(together)[k], rtol=0, atol=1e-7)
        assert int(alone.gradients[0]) == int(together.gradients[k])


def test_an_interval_that_ran_too_far_is_walked_again(learnable, papers80):
    """From a first interval of 60 steps the solver comes back: to shorter ones, and to the right masks."""
    found = AdaptiveSolver(0.0005, first_interval=60, steps=80).solve(learnable.objective, C)
    assert rms(found, papers80) < 2e-3
    for path, gradients in zip(found.losses, found.gradients.tolist(), strict=True):
        steps = [step for step, _ in path]
        assert steps == sorted(set(steps)) and 0 < steps[1] < 60
        assert len(path) < gradients  # those of masks off the path are left out


SIZES = Ragged(torch.tensor([12, 5, 9]))


def test_directions_go_on_turning_as_far_as_they_kept_to_their_turn():
    """A rollout that turns faster than before, one that half keeps to its turn, and one that turns back."""
    noise, first = torch.randn(2, SIZES.total, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = SIZES.spread(torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)) * first + 0.1 * noise
    spans, none = (torch.tensor([10, 3, 7]), torch.tensor([20, 3, 5])), torch.zeros(3, dtype=torch.bool)
    samples = [GradientSample(noise, torch.zeros(3, 1), torch.ones(3), torch.zeros(3, dtype=torch.long))]
    for rate, span in zip((first, second), spans, strict=True):
        turn = rate * SIZES.spread(span)
        samples.append(replace(samples[-1], direction=samples[-1].direction + turn, step=samples[-1].step + span))
    predictor, everywhere = TurnPredictor(first), torch.arange(SIZES.total)
    begun = predictor.damp(*samples[:2], everywhere, SIZES, none)
    torch.testing.assert_close(begun.direction, samples[0].direction)  # there is no turn before it: all of it goes on
    back = predictor.damp(*samples[1:], everywhere, SIZES, ~none)
    torch.testing.assert_close(back.direction, samples[1].direction)
    found = predictor.damp(*samples[1:], everywhere, SIZES, none)  # nothing was learned from walking back
    shares = []
    for a, b in pairwise([0, *SIZES.ends.tolist()]):
        before, after, turn = (x[a:b].numpy() for x in (first, second, samples[2].direction - samples[1].direction))
        shares.append(float(np.clip((before @ after) / (before @ before), 0, 1)))
        went = (samples[2].direction - found.direction)[a:b].numpy()
        np.testing.assert_allclose(went, shares[-1] * turn, rtol=0, atol=1e-12)
    assert shares == [1.0, pytest.approx(0.5, abs=0.2), 0.0]


def evaluation(seed: int, lengths: list[int]) -> Evaluation:
    generator = torch.Generator().manual_seed(seed)
    logprobs = -(10 ** (torch.rand(len(lengths), max(lengths), generator=generator, dtype=torch.float64) * 12 - 10))
    logprobs *= torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    size = -torch.expm1(logprobs).sum(1)  # a gradient is as small as the answer is certain
    gradient = torch.randn(SIZES.total, generator=generator, dtype=torch.float64) * SIZES.spread(size)
    return Evaluation(-logprobs.sum(1) / torch.tensor(lengths), gradient, logprobs)


def gradient_at(last: GradientSample, new: GradientSample, step: torch.Tensor, ragged: Ragged) -> torch.Tensor:
    share, ahead = (ragged.spread(each[0]) for each in extrapolate(last, new, step[None]))
    return -share * (new.direction + ahead * (new.direction - last.direction))


@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_interpolated_exactly_at_both_samples(seed):
    lengths, steps = [1, 3, 2], (torch.tensor([0, 4, 9]), torch.tensor([1, 11, 39]))
    ends = evaluation(seed, lengths), evaluation(seed + 100, lengths)
    last, new = (GradientSample.of(end, torch.tensor(lengths), at, SIZES) for end, at in zip(ends, steps, strict=True))
    for end, at in zip(ends, (last, new), strict=True):
        torch.testing.assert_close(gradient_at(last, new, at.step, SIZES), end.gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(gradient_at(at, at, at.step + 5, SIZES), end.gradient, rtol=1e-12, atol=0)


@pytest.mark.parametrize("at", [2, 8, 15])
def test_gradients_between_and_beyond_samples(at):
    """Direction and log-odds go on straight lines; the size follows from the odds."""
    first, second = [0.3, 0.5], [0.6, 0.95]
    samples, one = [], Ragged(torch.tensor([1]))
    for p, g, step in ((first, 2.0, 0), (second, 0.5, 10)):
        e = Evaluation(torch.zeros(1), torch.full((1,), g).double(), torch.tensor([p]).double().log())
        samples.append(GradientSample.of(e, torch.tensor([2]), torch.tensor([step]), one))
    x = at / 10
    odds = [(1 - x) * math.log(a / (1 - a)) + x * math.log(b / (1 - b)) for a, b in zip(first, second, strict=True)]
    share = [1 / (1 + math.exp(z)) for z in odds]
    directions = [2.0 / (0.7 + 0.5), 0.5 / (0.4 + 0.05)]
    expected = ((1 - x) * directions[0] + x * directions[1]) * sum(share)
    assert float(gradient_at(*samples, torch.tensor([at]), one)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("solver", [PaperSolver, AdaptiveSolver])
@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"lr": 0},
        {"lr": -1e-3},
        {"eps": 0},
        {"weight_decay": -0.1},
        {"sparsity": -1},
        {"betas": (1, 0.9)},
        {"betas": (0.9, -1)},
    ],
)
def test_invalid_options(solver: type[Solver], wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        solver(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"tolerance": 0}, {"first_interval": 0}, {"first_interval": 9, "max_interval": 8}, {"growth": 1}]
)
def test_invalid_options_of_the_adaptive_solver(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        AdaptiveSolver(**wrong)
