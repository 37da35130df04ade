"""What of Lightning's trainer a run cannot have, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atmanrl.errors import UserError

_LOOP = "it needs Lightning's own training loop, and a run has one of its own"
CALLBACKS_NOT_HERE = {
    "StochasticWeightAveraging": _LOOP,
    "WeightAveraging": _LOOP,
    "EMAWeightAveraging": _LOOP,
    "BackboneFinetuning": _LOOP,
    "GradientAccumulationScheduler": "model.minibatch_queries and model.micro_batch_tokens say what a step is made of",
    "LearningRateFinder": "the loss of a policy's update says nothing of its learning rate",
    "BatchSizeFinder": "model.micro_batch_tokens bounds the memory of an update",
}
"""Callbacks of Lightning that a run cannot have, and why."""
NOT_HERE = {
    "barebones": (True, "a run keeps its log, its evaluations and its checkpoints"),
    "enable_checkpointing": (False, "a run writes a checkpoint at its end, and trainer.fast_dev_run keeps nothing"),
}
"""Options of the trainer that a run cannot have, and why."""


def check_trainer(options: Mapping[str, Any]) -> None:
    """Refuse what a run cannot have of the trainer.

    Args:
        options: of the trainer, by name, as far as they are known.

    Raises:
        UserError: an option has such a value.
    """
    interval = options.get("val_check_interval")
    if interval == 0 and not isinstance(interval, bool):
        raise UserError(
            "trainer.val_check_interval is 0; give the updates between two evaluations, or trainer.limit_val_batches=0 "
            "for none."
        )
    for name, (refused, reason) in NOT_HERE.items():
        if options.get(name) is refused:
            raise UserError(f"trainer.{name}={str(refused).lower()}: {reason}; leave it out.")


def check_callback(name: str) -> None:
    """Refuse a callback of Lightning that a run cannot have.

    Args:
        name: of its class.

    Raises:
        UserError: it is one of those.
    """
    if name in CALLBACKS_NOT_HERE:
        raise UserError(f"trainer.callbacks: no {name} here, since {CALLBACKS_NOT_HERE[name]}; leave it out.")
