"""The probe: how much each token of a reasoning matters to the right answer. It knows nothing of rewards or GRPO."""

from atmanrl.probe.attention import ProbeError
from atmanrl.probe.attributions import Attribution, GradientAtStart, IntegratedGradients, Suppression
from atmanrl.probe.module import MaskProbe
from atmanrl.probe.result import ProbeResult
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver, Solver
from atmanrl.probe.target import Target

__all__ = [
    "AdaptiveSolver",
    "Attribution",
    "GradientAtStart",
    "IntegratedGradients",
    "MaskProbe",
    "PaperSolver",
    "ProbeError",
    "ProbeResult",
    "Solver",
    "Suppression",
    "Target",
]
