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
    """What was found for B rollouts.

    Attributes:
        tokens: B tensors `[T]`, one value for each token of the reasoning, in nats of the answer's loss a token (Eq. 2).
            Above 0: the answer is likelier with the token than without it. It may be below 0.
        reward: `[B]` the mean over the tokens of the reasoning. It grows with what the answer needs, as the paper's
            saliency does in the orientation `restored`; unlike that, it is in nats and has no bounds.
        loss_initial: `[B]` answer loss in nats a token before the intervention; each measure says at which mask.
        loss_final: `[B]` the same after it.
        gradients: `[B]` how many gradients were taken for each rollout.
        evaluations: `[B]` how many times each rollout's loss was computed, with or without a gradient.
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
        """Measure every token of all rollouts of `objective`.

        Args:
            objective: B rollouts.
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


def filled(objective: Objective, value: float) -> Tensor:
    """All masks' values `[P]`, all the same: float32, or float64 for a float64 model."""
    dtype = torch.promote_types(next(objective.model.parameters()).dtype, torch.float32)
    return torch.full((objective.entries.packing.total,), value, dtype=dtype, device=objective.device)


def tokens_of(entries: Entries, row: int) -> Tensor:
    """The reasoning token `[P]` to whose column each value of one rollout's mask belongs."""
    one = torch.tensor([row], device=entries.columns.device)
    if entries.shape == "column":
        return torch.arange(int(entries.columns[row]), device=one.device)
    return entries.where(one)[0].nonzero()[:, 1]


def column_sums(entries: Entries, values: Tensor) -> list[Tensor]:
    """The sums `[T]` of each column's values, for every rollout, from all values `[P]`."""
    parts = torch.split(values, entries.packing.counts.tolist())
    if entries.shape == "column":
        return list(parts)
    every_row = torch.arange(len(parts), device=values.device)
    return [entries.dense(part, one)[0].sum(0) for part, one in zip(parts, every_row[:, None], strict=True)]
