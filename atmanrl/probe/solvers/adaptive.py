"""AdamW's path with far fewer gradients: predicted between evaluations, corrected after them, at each target's own pace.

AdamW's 200 steps cost nothing; the 200 gradients do. Along the path a target's gradient changes in a simple way, and three
observations let most of the gradients be predicted:

1. *Its direction turns slowly; its size collapses when the answer becomes likely.* The gradient of a cross-entropy is
   g = -s G, with s the mean over answer tokens of 1 - p, and G the gradient of their log-odds. s falls by orders of
   magnitude within a few steps, G changes little. So s follows from the tokens' log-odds log p/(1-p), which every
   evaluation gives for nothing and which are extrapolated linearly; and G goes on turning as it did, as far as it has kept
   to its turns before: nearly all of the way at first, a fifth at the end (`TurnPredictor`).
2. *What has been predicted can be corrected.* Once the gradient at the end of an interval is known, the interval is walked
   again with gradients interpolated between its ends, which takes no further gradient (predict, evaluate, correct).
3. *The predicted and the corrected mask show the error.* How far they are apart at the end of an interval, in the very
   values of which rewards are means, sets each target's next interval: the work is least where every interval, wide or
   narrow, moves the mask by an error of the same size. Before its transition a target takes wide intervals, in it narrow
   ones, and after it, when gradients are far smaller than v remembers, very wide ones. An interval that ran into a
   transition is walked again only in part: the gradient taken at its end tells where the transition is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.calibration import Calibration
from atmanrl.probe.objective import Objective
from atmanrl.probe.solvers.base import Solution, Solver, Tiny
from atmanrl.probe.solvers.extrapolation import GradientSample, TurnPredictor
from atmanrl.probe.solvers.walk import State, Walk

GRADIENTS = 3.3
"""Gradients of 200 steps by the tolerance's third root, which the error of an interval grows with: three policies took 28 to
38 at a tolerance of 0.001, and 15 to 22 at 0.007 and 0.008 (`experiments/benchmarks/probe.py`)."""

TOO_FAR = 3.0
"""An interval whose error is this many times the tolerance is walked again in parts."""


class AdaptiveSolver(Solver):
    """AdamW's path by predicted and corrected gradients, with adaptive intervals.

    Where a target is evaluated in another batch, as on another number of processes, rounding may change an interval, and
    its reward within the tolerance; `PaperSolver` has nothing to choose.

    Args:
        tolerance: how far a predicted mask may be from the corrected one after an interval: the root mean square over its
            values, as a share of |c|. Smaller is closer to `PaperSolver` and slower.
        first_interval: steps of the first interval.
        max_interval: most steps between two gradients.
        growth: an interval is at most this many times as long as the one before.
        agreement: wanted correlation of advantages with `PaperSolver`'s, such as 0.99. While the policy is trained, the
            tolerance starts at `tolerance` and moves until the agreement holds with a confidence of 95 % (see
            `probe.calibration`). None keeps the tolerance.
        check_share: share of the gradients that these checks may take, besides the first one.
        check_groups: groups of an update that a check looks at.
        steps: see `Solver`, as are lr, betas, weight_decay, eps and sparsity.
        compiled: take the steps between gradients in one compiled kernel, which is ten times as fast on a CPU's thread and
            differs by rounding: by numba on a CPU (`pip install 'atmanrl[numba]'`), by Triton on a GPU; see `Walk`.

    Raises:
        UserError: an option is out of its range.
    """

    mask_copies = 16  # two states of three tensors, parts of both, two gradients, their turn, and one with its parts

    def __init__(
        self,
        tolerance: float = 0.001,
        first_interval: int = 12,
        max_interval: int = 60,
        growth: float = 3.0,
        agreement: float | None = None,
        check_share: float = 0.05,
        check_groups: int = 2,
        steps: int = 200,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.6, 0.9999),
        weight_decay: float = 0.05,
        eps: float = 1e-8,
        sparsity: float = 0.0,
        compiled: bool = False,
    ) -> None:
        super().__init__(steps, lr, betas, weight_decay, eps, sparsity)
        if tolerance <= 0 or first_interval < 1 or max_interval < first_interval or growth <= 1:
            raise UserError(
                "the adaptive solver needs tolerance > 0, 1 <= first_interval <= max_interval, and growth > 1 (in YAML, of "
                "probe.solver)."
            )
        self.calibration = None if agreement is None else Calibration(agreement, tolerance, check_share, check_groups)
        self.tolerance, self.first_interval = tolerance, first_interval
        self.max_interval, self.growth = max_interval, growth
        self.agreement = agreement
        self.compiled = compiled

    def expected_gradients(self) -> float:
        """Return how many gradients a rollout is likely to take at the present tolerance, with its part of the checks."""
        gradients = GRADIENTS * self.tolerance ** (-1 / 3) * self.steps / 200
        gradients = min(self.steps, max(gradients, self.steps / self.max_interval))
        return gradients if self.calibration is None else gradients * (1 + self.calibration.share)

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`.

        Raises:
            UserError: the kernel that `compiled` asks for cannot be compiled here.
        """
        values, ragged = self.initial(objective, init_value), objective.entries.ragged
        walk = Walk(self, values.device, self.compiled)
        running = objective.indices
        # `ahead` is where predictions have led, and where the next gradient is taken; `corrected` what is known to be right
        ahead = State(values, torch.zeros_like(values), torch.zeros_like(values), torch.zeros_like(running))
        corrected = ahead.take(running, ragged.positions(running))
        interval = torch.full_like(running, self.first_interval)
        gradients, loss_initial, tiny = torch.zeros_like(running), values.new_zeros(len(running)), Tiny(self.eps)
        losses: list[list[tuple[int, float]]] = [[] for _ in running]
        samples: GradientSample | None = None
        predictor = TurnPredictor(values)
        while len(running):
            positions, part = ragged.positions(running), ragged.take(running)
            state = ahead.take(running, positions)
            objective.step, objective.steps = int(state.step.min()), self.steps
            evaluation = objective.evaluate(state.values, running)
            tiny.count(evaluation.gradient)
            gradients[running] += 1
            for k, step, loss in zip(running.tolist(), state.step.tolist(), evaluation.loss.tolist(), strict=True):
                losses[k].append((step, loss))
            new = GradientSample.of(evaluation, objective.answer_lengths[running], ahead.step[running], part)
            if samples is None:
                loss_initial, samples, last = evaluation.loss, new, new
            else:
                last, predicted, span = samples.take(running, positions), state.values, new.step - samples.step[running]
                state = corrected.take(running, positions)
                walk(state, last, new, span, part, init_value)
                error = part.means((state.values - predicted).square_()).sqrt() / abs(init_value)
                interval[running] = self._next(span, error)
                again = (error > TOO_FAR * self.tolerance) & (span > 1)
                back, onward = again.nonzero()[:, 0], (~again).nonzero()[:, 0]
                at_back, at_onward = part.positions(back), part.positions(onward)
                for k in running[back].tolist():
                    losses[k].pop()  # of a mask off the path
                state.put(back, at_back, corrected.take(running[back], positions[at_back]))
                samples.put(running[onward], positions[at_onward], new.take(onward, at_onward))
                last = predictor.damp(last, new, positions, part, again)
            corrected.put(running, positions, state)
            interval[running] = torch.minimum(interval[running], self.steps - state.step)
            walk(state, last, new, interval[running], part, init_value)
            ahead.put(running, positions, state)
            running = running[ahead.step[running] < self.steps]
        return Solution(ahead.values, loss_initial, gradients, tiny.share, losses)

    def _next(self, span: Tensor, error: Tensor) -> Tensor:
        """Return the next interval: a linear prediction's error in the mask grows with the third power of the interval.

        It is shorter than `span` wherever `error` exceeds the tolerance, so an interval that is walked again ends sooner.
        """
        factor = (self.tolerance / error.clamp(min=1e-12)).pow(1 / 3).clamp(max=self.growth)
        return (span * factor).long().clamp(1, self.max_interval)
