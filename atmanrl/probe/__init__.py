"""The probe: how much each token of a reasoning matters to the right answer. It knows nothing of rewards or GRPO."""

from atmanrl.probe.attention import ProbeError
from atmanrl.probe.module import MaskProbe, ProbeResult
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver, Solver

__all__ = ["AdaptiveSolver", "MaskProbe", "PaperSolver", "ProbeError", "ProbeResult", "Solver"]
