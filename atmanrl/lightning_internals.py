"""Lightning's private parts that a run cannot do without: all that the package touches of them stands here, and why.

A new version of Lightning may change any of these without notice. Nothing else in the package reaches for a name of
Lightning's that begins with an underscore, or replaces one of its methods on an object; a test sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.connector import _convert_precision_to_unified_args
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from lightning.pytorch.strategies import ModelParallelStrategy


def precision_name(precision: str | int | None) -> str:
    """Return a precision by its full name, `bf16-mixed` for `bf16`.

    Why: `trainer.precision` takes numbers and old names, which Lightning translates; a run looks at the precision before
    there is a trainer, since some would turn rewards into half precision.
    """
    return _convert_precision_to_unified_args(precision) or "32-true"  # type: ignore[arg-type]


def unscales_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether an optimizer unscales the gradients of `16-mixed` by itself, within its step.

    Why: gradients are clipped before the step, when they would still be scaled. Lightning asks the same only where it
    clips by itself.
    """
    return _optimizer_handles_unscaling(optimizer)


def trainer_of(module: LightningModule) -> Trainer | None:
    """Return the trainer that a module is attached to, if any.

    Why: `module.trainer` raises an error where there is none, and a policy is also built without a trainer.
    """
    return module._trainer


def checkpoint_contents(trainer: Trainer) -> dict[str, Any]:
    """Return what a checkpoint of the current update holds, by all hooks.

    Why: `trainer.save_checkpoint` would make the contents and write them in one call, behind a barrier. Here writing is a
    step of its own, so that a disk that refuses it to one process ends all of them.
    """
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def call_after_update(trainer: Trainer, function: Callable[[], None]) -> None:
    """Call a function whenever a batch is over, its evaluation included.

    Why: Lightning's last hook of a batch, `on_train_batch_end`, comes before metrics are written and before the evaluation
    that follows; a checkpoint of that moment would lead to a run whose log has a gap.
    """
    loop = trainer.fit_loop.epoch_loop
    end = type(loop).on_advance_end

    def on_advance_end(data_fetcher: Any) -> None:
        end(loop, data_fetcher)
        function()

    loop.on_advance_end = on_advance_end  # type: ignore[method-assign]


def make_all_data_parallel(strategy: ModelParallelStrategy) -> None:
    """Let a strategy be data parallel over all processes of all nodes, before it makes its mesh of devices.

    Why: the constructor takes that size as a number, which is not known yet, or "auto", which means tensor parallelism
    within a node.
    """
    strategy._data_parallel_size = strategy.num_nodes * strategy.num_processes


class IgnoresHyperparameters:
    """A mixin of `LightningCLI`: options come from the config and the command line, never from a checkpoint.

    Why: Lightning reads the whole of `--ckpt_path` for hyperparameters, which here no checkpoint has, and lets them take
    precedence over what is typed (Lightning #21455). A sharded checkpoint, a folder, it could not even read.
    """

    def _parse_ckpt_path(self) -> None:
        pass
