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
from atmanrl.probe.packing import Packing
from atmanrl.probe.solvers.base import Solution, Solver, Tiny

SMALLEST_SHARE = 1e-6
"""Below this 1 - p is rounding noise in float32."""


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


@dataclass
class Knot:
    """The gradients of K rollouts in parts, each at one step of its path.

    Attributes:
        direction: G, `[P]`, packed.
        odds: z of each answer token, `[K, N]`, infinite on padding.
        lengths: number of answer tokens, `[K]`.
        step: where on the path, `[K]`.
    """

    direction: Tensor
    odds: Tensor
    lengths: Tensor
    step: Tensor

    def take(self, rows: Tensor, index: Tensor) -> Knot:
        """A copy of some rollouts, whose values stand at `index`."""
        return Knot(self.direction[index], self.odds[rows], self.lengths[rows], self.step[rows])

    def put(self, rows: Tensor, index: Tensor, other: Knot) -> None:
        """Write some rollouts back."""
        self.direction[index], self.odds[rows], self.step[rows] = other.direction, other.odds, other.step


class AdaptiveSolver(Solver):
    """AdamW's path by predicted and corrected gradients, with adaptive intervals.

    Args:
        tolerance: prediction error that sets the intervals, in units of AdamW's normalized step. Smaller is closer to
            `PaperSolver` and slower.
        first_interval: steps of the first interval.
        max_interval: most steps between two gradients.
        growth: an interval is at most this many times as long as the one before.
        steps: see `Solver`, as are lr, betas, weight_decay, eps and sparsity.
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
        sparsity: float = 0.0,
    ) -> None:
        super().__init__(steps, lr, betas, weight_decay, eps, sparsity)
        if tolerance <= 0 or first_interval < 1 or max_interval < first_interval or growth <= 1:
            raise UserError(
                "the adaptive solver needs tolerance > 0, 1 <= first_interval <= max_interval, and growth > 1."
            )
        self.tolerance, self.first_interval = tolerance, first_interval
        self.max_interval, self.growth = max_interval, growth

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        values, packing = self.initial(objective, init_value), objective.entries.packing
        alive = torch.arange(len(packing.counts), device=values.device)
        now = State(values, torch.zeros_like(values), torch.zeros_like(values), torch.zeros_like(alive))
        corrected = State(values.clone(), now.m.clone(), now.v.clone(), now.step.clone())
        interval, forecast = torch.full_like(alive, self.first_interval), torch.zeros_like(values)
        gradients, loss_initial, tiny = torch.zeros_like(alive), values.new_zeros(len(alive)), Tiny(self.eps)
        losses: list[list[tuple[int, float]]] = [[] for _ in alive]
        knots: Knot | None = None
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
                last = knots.take(alive, index)
                error = self._error(forecast[index], evaluation.gradient, state, part)
                interval[alive] = self._next(interval[alive], error)
                state = corrected.take(alive, index)
                self._walk(state, last, new, new.step - last.step, part, init_value)
                knots.put(alive, index, new)
            corrected.put(alive, index, state)
            interval[alive] = torch.minimum(interval[alive], self.steps - state.step)
            self._walk(state, last, new, interval[alive], part, init_value)
            now.put(alive, index, state)
            forecast[index] = gradient_at(last, new, state.step, part)
            alive = alive[now.step[alive] < self.steps]
        return Solution(now.values, loss_initial, gradients, tiny.share, losses)

    def _error(self, forecast: Tensor, gradient: Tensor, state: State, packing: Packing) -> Tensor:
        """Root mean square `[K]` of the prediction error over the values, in units of a normalized step."""
        root = (1 - self.betas[1] ** state.step.double()).sqrt().to(state.v.dtype)
        normalized = (forecast - gradient) / (state.v.sqrt() / packing.spread(root) + self.eps)
        return packing.means(normalized.square()).sqrt()

    def _next(self, interval: Tensor, error: Tensor) -> Tensor:
        """The next interval: a linear prediction's error grows with the square of the interval."""
        factor = (self.tolerance / error.clamp(min=1e-12)).sqrt().clamp(max=self.growth)
        return (interval * factor).long().clamp(1, self.max_interval)

    def _walk(
        self, state: State, last: Knot, new: Knot, count: Tensor, packing: Packing, init_value: float
    ) -> None:  # fmt: skip
        """Take `count [K]` AdamW steps in place, with gradients on the line through two knots.

        Rollouts stand in the order of their counts, so that those that are still under way come first.
        """
        order = count.argsort(descending=True)
        index, packed = packing.index(order), packing.take(order)
        running, last, new = state.take(order, index), last.take(order, index), new.take(order, index)
        turn, owner, ends = new.direction - last.direction, packed.owner(), packed.ends.tolist()
        beta1, beta2 = self.betas
        left = count[order].tolist()
        active, dtype = len(left), turn.dtype
        for done in range(left[0] if left else 0):
            while left[active - 1] <= done:
                active -= 1
            here = slice(0, ends[active - 1])
            share, ahead = _line(last, new, running.step + done, dtype)
            taken = (running.step + done + 1).double()
            root = (1 - beta2**taken).sqrt()
            size = self.lr * root / (1 - beta1**taken)
            # what belongs to a rollout, laid beside each of its values
            numbers = torch.stack([-share, -share * ahead, -size.to(dtype), (self.eps * root).to(dtype)])
            constant, slope, size, eps = numbers.index_select(1, owner[here])
            gradient = torch.addcmul(constant.mul_(new.direction[here]), slope, turn[here])
            if self.sparsity:
                under_way = Packing(packed.counts[:active])
                gradient += self.penalty(running.values[here], under_way, init_value)
            m, v = running.m[here].lerp_(gradient, 1 - beta1), running.v[here]
            v.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            running.values[here].mul_(1 - self.lr * self.weight_decay).addcdiv_(size.mul_(m), v.sqrt().add_(eps))
        running.step += count[order]
        state.put(order, index, running)


def knot(evaluation: Evaluation, lengths: Tensor, step: Tensor, packing: Packing) -> Knot:
    """The gradient of each rollout in parts: g = -s G, with s the mean of 1 - p over its answer tokens."""
    assert evaluation.gradient is not None
    logprobs = evaluation.logprobs.clamp(max=-SMALLEST_SHARE)
    odds = logprobs - torch.log(-torch.expm1(logprobs))
    valid = torch.arange(odds.shape[1], device=odds.device)[None] < lengths[:, None]
    odds = odds.masked_fill(~valid, float("inf"))
    return Knot(evaluation.gradient / packing.spread(-_share(odds, lengths)), odds, lengths, step)


def gradient_at(last: Knot, new: Knot, step: Tensor, packing: Packing) -> Tensor:
    """The gradient `[P]` at steps `[K]`, on the line through two knots in direction and in log-odds.

    Beyond `new` it is a prediction, between the knots an interpolation; with one knot alone it is constant.
    """
    share, ahead = _line(last, new, step, new.direction.dtype)
    direction = torch.addcmul(new.direction, new.direction - last.direction, packing.spread(ahead))
    return direction.mul_(packing.spread(-share))


def _line(last: Knot, new: Knot, step: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """At steps `[K]` on the line through two knots: s, and how far beyond `new` in units of their distance, `[K]` each."""
    span = (new.step - last.step).clamp(min=1)
    ahead = ((step - new.step) / span).to(dtype)
    odds = new.odds + torch.nan_to_num(new.odds - last.odds, nan=0.0) * ahead[:, None]
    return _share(odds, new.lengths), ahead


def _share(odds: Tensor, lengths: Tensor) -> Tensor:
    """The mean s of 1 - p over answer tokens, from their log-odds; padding stands at infinity and adds nothing."""
    return ((-odds).sigmoid().sum(1) / lengths).clamp(min=SMALLEST_SHARE)
