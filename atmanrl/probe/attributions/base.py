"""The plugin point `Attribution`: how much each token of a reasoning matters, with no mask optimized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.probe.mask import Entries, Shape
from atmanrl.probe.objective import Objective


@dataclass
class Attributions:
    """What was measured for B targets.

    Attributes:
        tokens: B tensors `[T]`, one value for each token of the reasoning, in nats of the answer's loss a token (Eq. 2).
            Above 0: the answer is likelier with the token than without it. It may be below 0.
        reward: `[B]` the mean over the tokens of the reasoning. It grows with what the answer needs, as the paper's
            saliency does in the orientation `restored`; unlike that, it is in nats and has no bounds.
        loss_initial: `[B]` answer loss in nats a token before the intervention; each measure says at which mask.
        loss_final: `[B]` the same after it.
        gradients: `[B]` how many gradients were taken for each target.
        evaluations: `[B]` how many times each target's loss was computed, with or without a gradient.

    Example:
        Of one target with a reasoning of two tokens, by the gradient at the start:
        `Attributions(tokens=[tensor([0.1, 1.3])], reward=tensor([0.7]), loss_initial=tensor([2.4]),
        loss_final=tensor([0.9]), gradients=tensor([1]), evaluations=tensor([2]))`
    """

    tokens: list[Tensor]
    reward: Tensor
    loss_initial: Tensor
    loss_final: Tensor
    gradients: Tensor
    evaluations: Tensor


class Attribution(ABC):
    """Measures what suppressing the reasoning's tokens does to the answer's loss.

    Attributes:
        shapes: of the mask, those for which the measure is defined.
    """

    shapes: ClassVar[tuple[Shape, ...]] = get_args(Shape)

    @abstractmethod
    def attribute(self, objective: Objective, init_value: float) -> Attributions:
        """Measure every token of all reasonings of `objective`.

        Args:
            objective: the loss, of B targets.
            init_value: c < 0, the mask's value where a token is suppressed.

        Raises:
            UserError: the measure is not defined for the mask's shape.
            ProbeError: the model ignores the bias, or its logits are not finite.
        """

    def check(self, shape: Shape) -> None:
        """Refuse a shape of the mask for which the measure is not defined.

        Raises:
            UserError: it is not in `shapes`.
        """
        if shape not in self.shapes:
            raise UserError(
                f"{type(self).__name__} is not defined for the mask's shape {shape!r}; "
                f"choose one of {', '.join(self.shapes)}."
            )


def tokens_of(entries: Entries, index: int) -> Tensor:
    """Return the reasoning token `[P]` to whose column each value of one target's mask belongs."""
    one = torch.tensor([index], device=entries.columns.device)
    if entries.shape == "column":
        return torch.arange(int(entries.columns[index]), device=one.device)
    return entries.where(one)[0].nonzero()[:, 1]


def column_sums(entries: Entries, values: Tensor) -> list[Tensor]:
    """Return the sums `[T]` of each column's values for every target, from all values `[P]`."""
    parts = torch.split(values, entries.ragged.counts.tolist())
    if entries.shape == "column":
        return list(parts)
    indices = torch.arange(len(parts), device=values.device)
    return [entries.dense(part, one)[0].sum(0) for part, one in zip(parts, indices[:, None], strict=True)]
