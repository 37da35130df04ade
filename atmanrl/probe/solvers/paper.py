"""The paper's optimizer, to the letter: one gradient for every AdamW step. It is the reference for every other solver."""

from __future__ import annotations

import torch

from atmanrl.probe.objective import Objective
from atmanrl.probe.solvers.base import Solution, Solver, Tiny


class PaperSolver(Solver):
    """`torch.optim.AdamW` on all masks at once, 200 steps with a gradient each (the paper, section 3.2)."""

    @classmethod
    def reference(cls, solver: Solver) -> PaperSolver:
        """Return the reference for another solver: with the same steps and options of AdamW."""
        return cls(solver.steps, solver.lr, solver.betas, solver.weight_decay, solver.eps, solver.sparsity)

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        values = self.initial(objective, init_value)
        optimizer = torch.optim.AdamW(
            [values], lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps
        )
        tiny = Tiny(self.eps)
        losses: list[torch.Tensor] = []
        for step in range(self.steps):
            objective.step, objective.steps = step, self.steps
            evaluation = objective.evaluate(values)
            losses.append(evaluation.loss)
            tiny.count(evaluation.gradient)
            values.grad = evaluation.gradient
            if self.sparsity:
                values.grad += self.penalty(values, objective.entries.ragged, init_value)
            optimizer.step()
        path = [list(enumerate(column)) for column in torch.stack(losses, dim=1).tolist()]
        gradients = torch.full_like(objective.indices, self.steps)
        return Solution(values.detach(), losses[0], gradients, tiny.share, path)
