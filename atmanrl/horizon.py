"""How far a run goes: its number of updates, and whether its evaluations ever come."""

from __future__ import annotations

import math

from lightning import Trainer

from atmanrl.errors import UserError


def planned_updates(trainer: Trainer) -> int | None:
    """Return how many updates a run is to make; None where only time, a callback or a signal ends it."""
    planned = trainer.estimated_stepping_batches
    return None if math.isinf(planned) or planned < 0 else int(planned)


def needed_updates(trainer: Trainer, option: str) -> int:
    """Return how many updates a run is to make, for a schedule that ends with it.

    Args:
        trainer: of the run.
        option: what could name another end, for the message.

    Raises:
        UserError: the run has no end that is known before.
    """
    planned = planned_updates(trainer)
    if planned is None:
        raise UserError(f"the schedule falls to the run's end, which nobody knows: give {option}trainer.max_steps.")
    return planned


def check_interval(trainer: Trainer | None, updates: int) -> None:
    """Refuse an interval between evaluations that is longer than the epoch within which it is counted.

    Args:
        trainer: of the run.
        updates: of an epoch.

    Raises:
        UserError: the interval is longer.
    """
    if trainer is None or not trainer.check_val_every_n_epoch or not trainer.limit_val_batches:
        return
    limit, interval = trainer.limit_train_batches, trainer.val_check_interval
    here = min(updates, limit) if isinstance(limit, int) else int(updates * limit)
    if isinstance(interval, int) and interval > here > 0:
        raise UserError(
            f"trainer.val_check_interval is {interval}, more than the {here} updates of an epoch; lower it, or give "
            "trainer.check_val_every_n_epoch=null, with which it counts the updates of all epochs."
        )


def batches_done(trainer: Trainer | None) -> int:
    """Return how many batches of its epoch a run that goes on from a checkpoint has behind it."""
    return 0 if trainer is None else trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
