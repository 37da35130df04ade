"""Solvers of the mask. A plugin point: subclass `Solver` in a module of your own and name it by `class_path`."""

from atmanrl.probe.solvers.adaptive import AdaptiveSolver
from atmanrl.probe.solvers.base import Solution, Solver
from atmanrl.probe.solvers.paper import PaperSolver

__all__ = ["AdaptiveSolver", "PaperSolver", "Solution", "Solver"]
