"""The paper's optimizer, to the letter: one gradient for every AdamW step. It is the reference for every other solver."""

from __future__ import annotations

import torch

from atmanrl.probe.objective import Objective
from atmanrl.probe.solvers.base import Solution, Solver, Tiny


class PaperSolver(Solver):
    """`torch.optim.AdamW` on all masks at once, 200 steps with a gradient each (the paper, section 3.2)."""

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        mask = self.initial(objective, init_value)
        optimizer = torch.optim.AdamW(
            [mask], lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps
        )
        everyone = torch.arange(len(mask), device=mask.device)
        tiny = Tiny(self.eps)
        loss_initial = None
        for _ in range(self.steps):
            evaluation = objective.evaluate(mask, everyone)
            assert evaluation.gradient is not None
            loss_initial = evaluation.loss if loss_initial is None else loss_initial
            tiny.count(evaluation.gradient, objective.where)
            mask.grad = evaluation.gradient
            optimizer.step()
        assert loss_initial is not None
        return Solution(mask.detach(), loss_initial, torch.full_like(everyone, self.steps), tiny.share)
