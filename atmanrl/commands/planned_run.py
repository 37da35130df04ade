"""A `fit` command up to where it would begin: everything is instantiated, and no weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from lightning.pytorch.strategies import StrategyRegistry

from atmanrl.commands.libraries import quiet
from atmanrl.commands.run_cli import RunCLI
from atmanrl.errors import UserError


class PlannedRun(RunCLI):
    """The objects of a run, instantiated as `fit` would on its own machine, with a trainer that this machine can have.

    Attributes:
        model: the LightningModule; its policy is not built.
        datamodule: what feeds it; its problems are not read.
        trainer: with the run's limits and intervals, and one process on the CPU.
        strategy: the run's, or `auto`.
        accelerator: the run's, `cpu` or `auto` for instance.

    Raises:
        UserError: `fit` would refuse the run.
    """

    def __init__(self, args: Sequence[str]) -> None:
        quiet()
        super().__init__(["fit", *args])

    def before_instantiate_classes(self) -> None:
        """Leave out what reports somewhere else."""
        super().before_instantiate_classes()
        self.config["fit"]["trainer"]["logger"] = False

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Keep strategy and accelerator, and take a trainer that any machine can have."""
        options = self._get(self.config_init, "trainer")
        self.accelerator, self.strategy = options["accelerator"], options["strategy"]
        # Lightning's Trainer reads names in any case
        name = self.strategy.lower() if isinstance(self.strategy, str) else "auto"
        if name != "auto":
            if name not in StrategyRegistry:
                known = ", ".join(["auto", *StrategyRegistry.available_strategies()])
                raise UserError(
                    f"trainer.strategy {self.strategy!r} is unknown; choose one of {known}, or give a class_path."
                )
            self.strategy = StrategyRegistry.get(name)
        for name, value in {"strategy": "auto", "accelerator": "cpu", "devices": 1, "num_nodes": 1}.items():
            options[name] = value
        return super().instantiate_trainer(**kwargs)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run nothing."""
