"""The contestants. A method is a function of a policy that returns a function of targets: a number for each token.

High numbers mean that the answer needs the token. Every method runs with its library's defaults. Ours take all targets
at once, the rivals one after the other, as their libraries offer it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from random import Random
from typing import Literal

from atmanrl.models.policy import Policy
from atmanrl.probe import (
    AdaptiveSolver,
    GradientAtStart,
    IntegratedGradients,
    MaskProbe,
    PaperSolver,
    Suppression,
    Target,
)
from experiments.benchmarks.attribution.signs import GradientSigns

Attribute = Callable[[Sequence[Target]], list[list[float]]]
"""Of B targets, one number for each token of each reasoning."""


@dataclass(frozen=True)
class Method:
    """A contestant.

    Attributes:
        title: in tables.
        family: `ours` is what this package offers; a `diagnosis` explains the result of another method.
        function: `module:name` in this package, what makes an `Attribute` of a policy; imported only when it is used.
        library: the distribution that it needs.
        eager: whether it reads attention weights, which eager attention alone shows.

    Example: `Method("random", "baseline", "methods:chance")`
    """

    title: str
    family: Literal["ours", "rival", "baseline", "diagnosis"]
    function: str
    library: str | None = None
    eager: bool = False

    def make(self, policy: Policy) -> Attribute:
        """Return what attributes the targets of a policy."""
        module, name = self.function.split(":")
        function: Callable[[Policy], Attribute] = getattr(import_module(f"{__package__}.{module}"), name)
        return function(policy)

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        if self.library is None or find_spec(self.library):
            return ""
        return f"{self.library} is not installed; pip install -c constraints.txt -e '.[attribution]'"


METHODS = {
    "mask_adaptive": Method("adaptive mask", "ours", "methods:mask_adaptive"),
    "mask_paper": Method("paper's mask", "ours", "methods:mask_paper"),
    "suppression": Method("suppression (AtMan)", "ours", "methods:suppression"),
    "gradient_at_start": Method("gradient at start", "ours", "methods:gradient_at_start"),
    "integrated_mask": Method("integrated gradients (mask)", "ours", "methods:integrated_mask"),
    "gradient_x_input": Method("gradient x input", "rival", "by_captum:gradient_x_input", "captum"),
    "integrated_gradients": Method("integrated gradients (embeddings)", "rival", "by_captum:integrated_gradients", "captum"),
    "attention": Method("attention", "rival", "by_inseq:attention", "inseq", eager=True),
    "value_zeroing": Method("value zeroing", "rival", "by_inseq:value_zeroing", "inseq", eager=True),
    "flashtrace": Method("FlashTrace", "rival", "by_flashtrace:span", "flashtrace", eager=True),
    "flashtrace_hops": Method("FlashTrace through the reasoning", "rival", "by_flashtrace:hops", "flashtrace", eager=True),
    "mask_column": Method("column mask", "ours", "methods:mask_column"),
    "gradient_sign": Method("sign of the gradient at start", "diagnosis", "methods:gradient_sign"),
    "later_first": Method("later tokens first", "baseline", "methods:later_first"),
    "random": Method("random", "baseline", "methods:chance"),
}  # fmt: skip
REFERENCE = "mask_adaptive"
"""The one that all others are compared with: the package's default."""


def mask_adaptive(policy: Policy) -> Attribute:
    """The saliency of the optimized mask, by the package's own solver."""
    return _probed(policy, MaskProbe(solver=AdaptiveSolver()))


def mask_paper(policy: Policy) -> Attribute:
    """The same by the paper's 200 gradients."""
    return _probed(policy, MaskProbe(solver=PaperSolver()))


def mask_column(policy: Policy) -> Attribute:
    """The adaptive solver's mask with one value for each token, whichever position attends to it."""
    return _probed(policy, MaskProbe(solver=AdaptiveSolver(), shape="column"))


def gradient_sign(policy: Policy) -> Attribute:
    """AdamW's first step (see `signs`)."""
    return _probed(policy, MaskProbe(attribution=GradientSigns()))


def suppression(policy: Policy) -> Attribute:
    """AtMan's: what the answer loses when one token is suppressed."""
    return _probed(policy, MaskProbe(attribution=Suppression()))


def gradient_at_start(policy: Policy) -> Attribute:
    """The gradient in the mask where all is suppressed."""
    return _probed(policy, MaskProbe(attribution=GradientAtStart()))


def integrated_mask(policy: Policy) -> Attribute:
    """Integrated gradients over the mask."""
    return _probed(policy, MaskProbe(attribution=IntegratedGradients()))


def later_first(policy: Policy) -> Attribute:
    """A token's place: no model is asked."""
    return one_by_one(lambda target: [float(place) for place in range(len(target.cot_ids))])


def chance(policy: Policy) -> Attribute:
    """Random numbers, the same for the same target."""
    return one_by_one(lambda target: [Random(f"{target}/{k}").random() for k in range(len(target.cot_ids))])


def one_by_one(attribute: Callable[[Target], list[float]]) -> Attribute:
    """Return the method of several targets that attributes each by itself."""
    return lambda targets: [attribute(target) for target in targets]


def _probed(policy: Policy, probe: MaskProbe) -> Attribute:
    def attribute(targets: Sequence[Target]) -> list[list[float]]:
        return [saliency or [] for saliency in probe.solve_targets(policy, targets).saliency]

    return attribute
