"""The paper's optimizer, and what a run refuses in one that a user names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from atmanrl.errors import UserError
from atmanrl.lightning_internals import unscales_gradients


@contextmanager
def refusals(option: str) -> Iterator[None]:
    """Turn what an optimizer or a schedule refuses (a learning rate below 0, a step too many) into a `UserError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UserError(f"model.{option} was refused: {error}.") from error


def paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    """Return AdamW at the paper's learning rate of 8e-7, without weight decay."""
    return torch.optim.AdamW(parameters, lr=8e-7, weight_decay=0.0)


def check_optimizer(optimizer: torch.optim.Optimizer, precision: str) -> None:
    """Refuse an optimizer that an update cannot step.

    Args:
        optimizer: over the trainable parameters.
        precision: the trainer's, by its full name.

    Raises:
        UserError: it asks for the loss again, or unscales gradients after they are clipped.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UserError("model.optimizer must take one gradient a step; LBFGS asks for the loss again and again.")
    if precision == "16-mixed" and unscales_gradients(optimizer):
        raise UserError(
            "model.optimizer is fused: in 16-mixed it unscales gradients after they are clipped; give it fused: false, "
            "or take trainer.precision bf16-mixed."
        )
