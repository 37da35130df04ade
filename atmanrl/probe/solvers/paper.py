"""The paper's optimizer, to the letter: one gradient for every AdamW step. It is the reference for every other solver."""

from __future__ import annotations

import torch

from atmanrl.probe.objective import Objective
from atmanrl.probe.solvers.base import Solution, Solver, Tiny


class PaperSolver(Solver):
    """`torch.optim.AdamW` on all masks at once, 200 steps with a gradient each (the paper, section 3.2)."""

    @classmethod
    def reference(cls, solver: Solver) -> PaperSolver:
        """The reference for another solver: with its steps and AdamW's options as it has them."""
        return cls(solver.steps, solver.lr, solver.betas, solver.weight_decay, solver.eps, solver.sparsity)

    def solve(self, objective: Objective, init_value: float) -> Solution:
        """Optimize the masks; see `Solver.solve`."""
        values = self.initial(objective, init_value)
        optimizer = torch.optim.AdamW(
            [values], lr=self.lr, betas=self.betas, weight_decay=self.weight_decay, eps=self.eps
        )
        every_row = torch.arange(len(objective.targets), device=values.device)
        tiny = Tiny(self.eps)
        losses: list[torch.Tensor] = []
        for _ in range(self.steps):
            evaluation = objective.evaluate(values, every_row)
            assert evaluation.gradient is not None
            losses.append(evaluation.loss)
            tiny.count(evaluation.gradient)
            values.grad = evaluation.gradient
            if self.sparsity:
                values.grad += self.penalty(values, objective.entries.packing, init_value)
            optimizer.step()
        path = [list(enumerate(column)) for column in torch.stack(losses, dim=1).tolist()]
        return Solution(values.detach(), losses[0], torch.full_like(every_row, self.steps), tiny.share, path)
