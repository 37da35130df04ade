"""AdamW's path with far fewer gradients: predicted between evaluations, corrected after them, at each rollout's own pace.

AdamW's 200 steps cost nothing; the 200 gradients do. Along the path a rollout's gradient changes in a simple way, and three
observations let most of them be predicted:

1. *Its direction barely turns; its size collapses when the answer becomes likely.* The gradient of a cross-entropy is
   g = -s G, with s the mean over answer tokens of 1 - p, and G the gradient of their log-odds. s falls by orders of
   magnitude within a few steps, G hardly changes. So G is extrapolated linearly, and s follows from the tokens' log-odds
   z = log p/(1-p), extrapolated linearly too: they are known from every evaluation at no cost.
2. *What has been predicted can be corrected.* Once the gradient at the end of an interval is known, the interval is walked
   again with gradients interpolated between its ends, which costs no gradient (predict, evaluate, correct).
3. *Adam divides by the root of v, so only gradient errors of about that size matter.* The prediction error is measured in
   that unit, and it sets each rollout's next interval. Before its transition a rollout takes wide intervals, within it
   narrow ones, and afterwards, when gradients are far smaller than v remembers, very wide ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.objective import Evaluation, Objective
from atmanrl.probe.solvers.base import Solution, Solver, Tiny

SMALLEST_SHARE = 1e-6
"""Below this 1 - p is rounding noise in float32."""


@dataclass
class State:
    """AdamW's state for K rollouts: masks and moments `[K, R, T]`, steps taken `[K]`."""

    mask: Tensor
    m: Tensor
    v: Tensor
    step: Tensor

    def take(self, rows: Tensor) -> State:
        """A copy of some rows."""
        return State(self.mask[rows], self.m[rows], self.v[rows], self.step[rows])

    def put(self, rows: Tensor, other: State) -> None:
        """Write some rows back."""
        self.mask[rows], self.m[rows], self.v[rows], self.step[rows] = other.mask, other.m, other.v, other.step


@dataclass
class Knot:
    """The gradients of K rollouts in parts, each at one step of its path.

    Attributes:
        direction: G, `[K, R, T]`.
        odds: z of each answer token, `[K, N]`, infinite on padding.
        lengths: number of answer tokens, `[K]`.
        step: where on the path, `[K]`.
    """

    direction: Tensor
    odds: Tensor
    lengths: Tensor
    step: Tensor

    def take(self, rows: Tensor) -> Knot:
        """A copy of some rows."""
        return Knot(self.direction[rows], self.odds[rows], self.lengths[rows], self.step[rows])

    def put(self, rows: Tensor, other: Knot) -> None:
        """Write some rows back."""
        self.direction[rows], self.odds[rows], self.step[rows] = other.direction, other.odds, other.step

    def head(self, count: int) -> Knot:
        """The first rows, not copied."""
        return Knot(self.direction[:count], self.odds[:count], self.lengths[:count], self.step[:count])


class AdaptiveSolver(Solver):
    """AdamW's path by predicted and corrected gradients, with adaptive intervals.

    Args:
        tolerance: prediction error that sets the intervals, in units of AdamW's normalized step. Smaller is closer to
            `PaperSolver` and slower.
        first_interval: steps of the first interval.
        max_interval: most steps between two gradients.
        growth: an interval is at most this many times as long as the one before.
        steps: see `Solver`, as are lr, betas, weight_decay and eps.
    """

    def __init__(
        self,
        tolerance: float = 0.1,
        first_interval: int = 2,
        max_interval: int = 60,
        growth: float = 3.0,
        steps: int = 200,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.6, 0.9999),
        weight_decay: float = 0.05,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(steps, lr, betas, weight_decay, eps)
        if tolerance <= 0 or first_interval < 1 or max_interval < first_interval or growth <= 1:
            raise UserError(
                "the adaptive solver needs tolerance > 0, 1 <= first_interval <= max_interval, and growth > 1."
            )
        self.tolerance, self.first_interval = tolerance, first_interval
        self.max_interval, self.growth = max_interval, growth

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        mask = self.initial(objective, init_value)
        alive = torch.arange(len(mask), device=mask.device)
        now = State(mask, torch.zeros_like(mask), torch.zeros_like(mask), torch.zeros_like(alive))
        corrected, interval = now.take(alive), torch.full_like(alive, self.first_interval)
        forecast = torch.zeros_like(mask)
        gradients, loss_initial, tiny = torch.zeros_like(alive), mask.new_zeros(len(mask)), Tiny(self.eps)
        knots: Knot | None = None
        while len(alive):
            evaluation = objective.evaluate(now.mask[alive], alive)
            assert evaluation.gradient is not None
            tiny.count(evaluation.gradient, objective.where[alive])
            gradients[alive] += 1
            state, new = now.take(alive), knot(evaluation, objective.answer_lengths[alive], now.step[alive])
            if knots is None:
                loss_initial, knots, last = evaluation.loss, new.take(alive), new
            else:
                last = knots.take(alive)
                error = self._error(forecast[alive], evaluation.gradient, state, objective.where[alive])
                interval[alive] = self._next(interval[alive], error)
                state = corrected.take(alive)
                self._walk(state, last, new, new.step - last.step)
                knots.put(alive, new)
            corrected.put(alive, state)
            interval[alive] = torch.minimum(interval[alive], self.steps - state.step)
            self._walk(state, last, new, interval[alive])
            now.put(alive, state)
            forecast[alive] = gradient_at(last, new, state.step)
            alive = alive[now.step[alive] < self.steps]
        return Solution(now.mask, loss_initial, gradients, tiny.share)

    def _error(self, forecast: Tensor, gradient: Tensor, state: State, where: Tensor) -> Tensor:
        """Root mean square `[K]` of the prediction error over trainable entries, in units of a normalized step."""
        unbias = (1 - self.betas[1] ** state.step.double()).to(state.v.dtype)[:, None, None]
        normalized = (forecast - gradient) / ((state.v / unbias).sqrt() + self.eps)
        return ((normalized.square() * where).sum((1, 2)) / where.sum((1, 2))).sqrt()

    def _next(self, interval: Tensor, error: Tensor) -> Tensor:
        """The next interval: a linear prediction's error grows with the square of the interval."""
        factor = (self.tolerance / error.clamp(min=1e-12)).sqrt().clamp(max=self.growth)
        return (interval * factor).long().clamp(1, self.max_interval)

    def _walk(self, state: State, last: Knot, new: Knot, count: Tensor) -> None:
        """Take `count [K]` AdamW steps in place, with gradients on the line through two knots."""
        order = count.argsort(descending=True)
        running, last, new = state.take(order), last.take(order), new.take(order)
        beta1, beta2 = self.betas
        left = count[order].tolist()
        active = len(left)
        for step in range(left[0] if left else 0):
            while left[active - 1] <= step:
                active -= 1
            part = State(running.mask[:active], running.m[:active], running.v[:active], running.step[:active])
            gradient = gradient_at(last.head(active), new.head(active), part.step)
            part.step += 1
            taken = part.step.double()
            root = (1 - beta2**taken).sqrt()
            size = (self.lr * root / (1 - beta1**taken)).to(gradient.dtype)[:, None, None]
            part.m.lerp_(gradient, 1 - beta1)
            part.v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            below = part.v.sqrt().add_((self.eps * root).to(gradient.dtype)[:, None, None])
            part.mask.mul_(1 - self.lr * self.weight_decay).addcdiv_(part.m * size, below, value=-1)
        state.put(order, running)


def knot(evaluation: Evaluation, lengths: Tensor, step: Tensor) -> Knot:
    """The gradient of each rollout in parts: g = -s G, with s the mean of 1 - p over its answer tokens."""
    assert evaluation.gradient is not None
    logprobs = evaluation.logprobs.clamp(max=-SMALLEST_SHARE)
    odds = logprobs - torch.log(-torch.expm1(logprobs))
    valid = torch.arange(odds.shape[1], device=odds.device)[None] < lengths[:, None]
    odds = odds.masked_fill(~valid, float("inf"))
    return Knot(-evaluation.gradient / _share(odds, lengths)[:, None, None], odds, lengths, step)


def gradient_at(last: Knot, new: Knot, step: Tensor) -> Tensor:
    """The gradient `[K, R, T]` at steps `[K]`, on the line through two knots in direction and in log-odds.

    Beyond `new` it is a prediction, between the knots an interpolation; with one knot alone it is constant.
    """
    span = (new.step - last.step).clamp(min=1)
    ahead = ((step - new.step) / span).to(new.direction.dtype)
    odds = new.odds + torch.nan_to_num(new.odds - last.odds, nan=0.0) * ahead[:, None]
    direction = torch.addcmul(new.direction, new.direction - last.direction, ahead[:, None, None])
    return direction.mul_(-_share(odds, new.lengths)[:, None, None])


def _share(odds: Tensor, lengths: Tensor) -> Tensor:
    """The mean s of 1 - p over answer tokens, from their log-odds; padding stands at infinity and adds nothing."""
    return ((-odds).sigmoid().sum(1) / lengths).clamp(min=SMALLEST_SHARE)
