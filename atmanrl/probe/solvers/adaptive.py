"""AdamW's path with far fewer gradients: predicted between evaluations, corrected after them, at each rollout's own pace.

AdamW's 200 steps cost nothing; the 200 gradients do. Along the path a rollout's gradient changes in a simple way, and three
observations let most of them be predicted:

1. *Its direction turns slowly; its size collapses when the answer becomes likely.* The gradient of a cross-entropy is
   g = -s G, with s the mean over answer tokens of 1 - p, and G the gradient of their log-odds. s falls by orders of
   magnitude within a few steps, G changes little. So s follows from the tokens' log-odds z = log p/(1-p), known from every
   evaluation at no cost and extrapolated linearly, and G goes on turning as it did, to the extent to which it has kept to
   its turns so far: nearly all of it at first, a fifth at the end (`Trend`).
2. *What has been predicted can be corrected.* Once the gradient at the end of an interval is known, the interval is walked
   again with gradients interpolated between its ends, which costs no gradient (predict, evaluate, correct).
3. *Predicted and corrected masks tell how much was lost.* Their distance at the end of an interval is what the rewards are
   read from, and it sets each rollout's next interval: the work is least where every interval, wide or narrow, moves the
   mask by an error of the same size. Before its transition a rollout takes wide intervals, within it narrow ones, and
   afterwards, when gradients are far smaller than v remembers, very wide ones. An interval that ran into a transition is
   walked again, no further than its ends allow: the gradient taken at its end tells where the transition is.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.calibration import Calibration
from atmanrl.probe.objective import Objective
from atmanrl.probe.packing import Packing
from atmanrl.probe.solvers.base import Solution, Solver, Tiny
from atmanrl.probe.solvers.knots import Knot, Trend, knot, line

GRADIENTS = 3.3
"""Gradients of 200 steps by the tolerance's third root, which the error of an interval grows with: three policies took 28 to
38 at a tolerance of 0.001, and 15 to 22 at 0.007 and 0.008 (`experiments/benchmarks/probe.py`)."""

TOO_FAR = 3.0
"""An interval whose error is this many times the tolerance is walked again in parts."""


@dataclass
class State:
    """AdamW's state for K rollouts: values and moments `[P]`, packed, and steps taken `[K]`."""

    values: Tensor
    m: Tensor
    v: Tensor
    step: Tensor

    def take(self, rows: Tensor, index: Tensor) -> State:
        """A copy of some rollouts, whose values stand at `index`."""
        return State(self.values[index], self.m[index], self.v[index], self.step[rows])

    def put(self, rows: Tensor, index: Tensor, other: State) -> None:
        """Write some rollouts back."""
        self.values[index], self.m[index], self.v[index] = other.values, other.m, other.v
        self.step[rows] = other.step


class AdaptiveSolver(Solver):
    """AdamW's path by predicted and corrected gradients, with adaptive intervals.

    Where a rollout stands in another batch, as on another number of processes, rounding may change an interval, and its
    reward within the tolerance; `PaperSolver` has nothing to choose.

    Args:
        tolerance: how far a predicted mask may be from the corrected one after an interval: the root mean square over its
            values, as a share of |c|. Smaller is closer to `PaperSolver` and slower.
        first_interval: steps of the first interval.
        max_interval: most steps between two gradients.
        growth: an interval is at most this many times as long as the one before.
        agreement: wanted correlation of advantages with `PaperSolver`'s, 0.99 say. While the policy is trained the
            tolerance then only begins at `tolerance` and moves until the agreement holds with a confidence of 95 % (see
            `probe.calibration`). None keeps the tolerance.
        check_share: of the gradients that these checks may take, besides the first one.
        check_groups: groups of an update that a check looks at.
        steps: see `Solver`, as are lr, betas, weight_decay, eps and sparsity.
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
    ) -> None:
        super().__init__(steps, lr, betas, weight_decay, eps, sparsity)
        if tolerance <= 0 or first_interval < 1 or max_interval < first_interval or growth <= 1:
            raise UserError(
                "the adaptive solver needs tolerance > 0, 1 <= first_interval <= max_interval, and growth > 1."
            )
        self.calibration = None if agreement is None else Calibration(agreement, tolerance, check_share, check_groups)
        self.tolerance, self.first_interval = tolerance, first_interval
        self.max_interval, self.growth = max_interval, growth
        self.agreement = agreement

    def expected_gradients(self) -> float:
        """Return how many gradients a rollout is likely to take at the present tolerance, with its part of the checks."""
        gradients = GRADIENTS * self.tolerance ** (-1 / 3) * self.steps / 200
        gradients = min(self.steps, max(gradients, self.steps / self.max_interval))
        return gradients if self.calibration is None else gradients * (1 + self.calibration.share)

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        values, packing = self.initial(objective, init_value), objective.entries.packing
        alive = torch.arange(len(packing.counts), device=values.device)
        now = State(values, torch.zeros_like(values), torch.zeros_like(values), torch.zeros_like(alive))
        corrected = now.take(alive, packing.index(alive))
        interval = torch.full_like(alive, self.first_interval)
        gradients, loss_initial, tiny = torch.zeros_like(alive), values.new_zeros(len(alive)), Tiny(self.eps)
        losses: list[list[tuple[int, float]]] = [[] for _ in alive]
        knots: Knot | None = None
        trend = Trend(values)
        while len(alive):
            index, part = packing.index(alive), packing.take(alive)
            state = now.take(alive, index)
            evaluation = objective.evaluate(state.values, alive)
            assert evaluation.gradient is not None
            tiny.count(evaluation.gradient)
            gradients[alive] += 1
            for row, step, loss in zip(alive.tolist(), state.step.tolist(), evaluation.loss.tolist(), strict=True):
                losses[row].append((step, loss))
            new = knot(evaluation, objective.answer_lengths[alive], now.step[alive], part)
            if knots is None:
                loss_initial, knots, last = evaluation.loss, new, new
            else:
                last, predicted, span = knots.take(alive, index), state.values, new.step - knots.step[alive]
                state = corrected.take(alive, index)
                self._walk(state, last, new, span, part, init_value)
                error = part.means((state.values - predicted).square_()).sqrt() / abs(init_value)
                interval[alive] = self._next(span, error)
                again = (error > TOO_FAR * self.tolerance) & (span > 1)
                back, onward = again.nonzero()[:, 0], (~again).nonzero()[:, 0]
                at_back, at_onward = part.index(back), part.index(onward)
                for row in alive[back].tolist():
                    losses[row].pop()  # of a mask off the path
                state.put(back, at_back, corrected.take(alive[back], index[at_back]))
                knots.put(alive[onward], index[at_onward], new.take(onward, at_onward))
                last = trend.line(last, new, index, part, again)
            corrected.put(alive, index, state)
            interval[alive] = torch.minimum(interval[alive], self.steps - state.step)
            self._walk(state, last, new, interval[alive], part, init_value)
            now.put(alive, index, state)
            alive = alive[now.step[alive] < self.steps]
        return Solution(now.values, loss_initial, gradients, tiny.share, losses)

    def _next(self, span: Tensor, error: Tensor) -> Tensor:
        """The next interval: a linear prediction's error in the mask grows with the third power of the interval.

        It is shorter than `span` wherever `error` exceeds the tolerance, so an interval that is walked again ends sooner.
        """
        factor = (self.tolerance / error.clamp(min=1e-12)).pow(1 / 3).clamp(max=self.growth)
        return (span * factor).long().clamp(1, self.max_interval)

    def _walk(
        self, state: State, last: Knot, new: Knot, count: Tensor, packing: Packing, init_value: float
    ) -> None:  # fmt: skip
        """Take `count [K]` AdamW steps in place, with gradients on the line through two knots.

        Rollouts stand in the order of their counts, so that those that are still under way come first.
        """
        order = count.argsort(descending=True)
        index, packed = packing.index(order), packing.take(order)
        running, last, new = state.take(order, index), last.take(order, index), new.take(order, index)
        turn, ends, left = new.direction - last.direction, packed.ends.tolist(), count[order].tolist()
        beta1, beta2 = self.betas
        steps = running.step + torch.arange(left[0], device=turn.device)[:, None]
        share, ahead = line(last, new, steps)
        taken = (steps + 1).double()
        root = (1 - beta2**taken).sqrt()
        size = self.lr * root / (1 - beta1**taken)
        table = torch.stack([-share, -share * ahead, -size, self.eps * root], dim=1).to(turn.dtype)
        active, under_way = len(left), packed
        for done in range(left[0]):
            if left[active - 1] <= done:
                active = bisect_left(left, -done, key=lambda steps: -steps)
                under_way = Packing(packed.counts[:active])
            here = slice(0, ends[active - 1])
            # what belongs to a rollout, laid beside each of its values
            constant, slope, size, eps = under_way.spread(table[done, :, :active])
            gradient = torch.addcmul(constant.mul_(new.direction[here]), slope, turn[here])
            if self.sparsity:
                gradient += self.penalty(running.values[here], under_way, init_value)
            m, v = running.m[here].lerp_(gradient, 1 - beta1), running.v[here]
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            running.values[here].mul_(1 - self.lr * self.weight_decay).addcdiv_(size.mul_(m), v.sqrt().add_(eps))
        running.step += count[order]
        state.put(order, index, running)
