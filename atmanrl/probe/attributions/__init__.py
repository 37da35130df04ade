"""Measures of the tokens that optimize no mask. A plugin point: subclass `Attribution` and name it by `class_path`.

They answer other questions than the paper's saliency (Eq. 3), in other units, and none of them stands in for it: each is
chosen by its own name.
"""

from atmanrl.probe.attributions.base import Attribution, Attributions
from atmanrl.probe.attributions.gradient import GradientAtStart, IntegratedGradients
from atmanrl.probe.attributions.suppression import Suppression

__all__ = ["Attribution", "Attributions", "GradientAtStart", "IntegratedGradients", "Suppression"]
