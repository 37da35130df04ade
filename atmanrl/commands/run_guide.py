"""`RunGuide`: a command's first lines and its last: what, where, how long; where the results are, and what comes next."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from atmanrl.grpo import GRPOModule
from atmanrl.horizon import planned_updates
from atmanrl.io import escape
from atmanrl.io.run_layout import COMMAND, CONFIG, EVALUATIONS, POLICY
from atmanrl.io.terminal import print_whole
from atmanrl.metrics.base import Stage
from atmanrl.metrics.callback import MetricsCallback
from atmanrl.plan.units import counted, seconds_text
from atmanrl.report.table1 import build, in_terminal
from atmanrl.rollouts import RolloutDataModule

HOLDS = "config.yaml, metrics.csv, rollouts/, eval/, checkpoints/, policy/"
"""What a run's folder comes to hold."""
STAGES: dict[str, Stage] = {"validate": "validation", "test": "test"}
PREFIXES = {"validate": "val/", "test": "test/"}


class RunGuide(Callback):
    """Tells whoever watches a command what begins, and what to do when it has ended.

    Args:
        folder: of the run; None where nothing of it is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder, self.console = folder, Console()
        self.began, self.updates = 0.0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained, where, and for how long."""
        planned, data = planned_updates(trainer), _data(trainer)
        length = (
            "updates without a planned end" if planned is None else counted(planned - trainer.global_step, "update")
        )
        if isinstance(data, RolloutDataModule):
            length += (
                f" of {counted(data.queries_per_device * trainer.world_size, 'problem')} x "
                f"{counted(data.group_size, 'completion')}, of at most {counted(data.max_new_tokens, 'token')}"
            )
        self._begin(trainer, pl_module, COMMAND, HOLDS, f"{length}. Ctrl-C saves and ends it.")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say after the first update how long the run will take."""
        self.updates += 1
        planned = planned_updates(trainer)
        if self.updates == 1 and planned is not None and planned > trainer.global_step:
            seconds = time.monotonic() - self.began
            left = seconds_text(seconds * (planned - trainer.global_step))
            self._say(trainer, f"The first update took {seconds:.1f} s: about {left} to go, evaluations apart.")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the results are, and how the policy is tested."""
        if self.folder is None or not self.updates:
            return
        policy, config = self.folder / POLICY, self.folder / CONFIG
        self._say(trainer, f"{counted(self.updates, 'update')} done in {self._seconds()}. {self.folder} holds {HOLDS}.")
        if isinstance(pl_module, GRPOModule):
            self._next(trainer, "atmanrl", "test", f"--config={config}", f"--model.policy.path={policy}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is evaluated, where, and how much of it there is."""
        command = trainer.state.fn
        if command is None or command == COMMAND:
            return
        data, count = _data(trainer), "a batch at a time"
        if isinstance(data, RolloutDataModule) and data.task is not None:
            rows = len(data.rows["val" if command == "validate" else "test"])
            count = (
                f"{counted(rows, 'problem')} x {counted(data.eval_samples, 'completion')}, of at most "
                f"{counted(data.max_new_tokens, 'token')}"
            )
        self._begin(trainer, pl_module, command.value, ", ".join(EVALUATIONS[command.value]), f"{count}.")

    on_test_start = on_predict_start = on_validation_start

    def finish(self, trainer: Trainer, command: str) -> None:
        """Print what an evaluation has measured, where it is written, and what comes next."""
        if command == COMMAND or not trainer.is_global_zero:
            return
        if command in STAGES:
            self._show(trainer, command)
        if self.folder is not None:
            files = [str(self.folder / name) for name in EVALUATIONS[command] if (self.folder / name).exists()]
            self._say(trainer, f"Done in {self._seconds()}{': ' if files else ''}{', '.join(files)}.")
            if command == "test" and files:
                self._next(trainer, "atmanrl", "report", str(self.folder), f"--out={self.folder / 'report'}")

    def _show(self, trainer: Trainer, command: str) -> None:
        """Print the metrics as a row of Table 1, and the other ones behind it."""
        prefix = PREFIXES[command]
        values = {
            name.removeprefix(prefix): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(prefix)
        }
        measured = next((c for c in trainer.callbacks if isinstance(c, MetricsCallback)), None)  # type: ignore[attr-defined]
        columns = {} if measured is None else measured.columns(STAGES[command])
        columns = {key: column for key, column in columns.items() if key in values}
        if columns:
            name = command if self.folder is None else self.folder.resolve().name
            table = build({name: {key: values.pop(key) for key in columns}}, name, columns)
            print_whole(self.console, in_terminal(table))
        if values:
            self._say(trainer, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def _begin(self, trainer: Trainer, pl_module: LightningModule, command: str, holds: str, length: str) -> None:
        self.began = time.monotonic()
        self._say(trainer, f"{command}: {_what(trainer, pl_module)}")
        device = f"{trainer.strategy.root_device}"
        device += f" ({torch.get_num_threads()} threads)" if device == "cpu" else ""
        device += f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
        self._say(trainer, f"on {device}, into {self.folder or 'a folder that is not kept'}: {holds}")
        self._say(trainer, length)

    def _next(self, trainer: Trainer, *words: str) -> None:
        self._say(trainer, f"Next: {shlex.join(words)}")

    def _seconds(self) -> str:
        return seconds_text(time.monotonic() - self.began)

    def _say(self, trainer: Trainer, line: str) -> None:
        if trainer.is_global_zero:
            self.console.print(escape.terminal(line), markup=False, highlight=False, soft_wrap=True)


def _what(trainer: Trainer, module: LightningModule) -> str:
    """Return who learns or is measured, on what, and for which rewards."""
    policy, data = getattr(module, "policy", None), _data(trainer)
    path = getattr(policy, "path", None) or type(module).__name__
    count = sum(parameter.numel() for parameter in module.parameters())
    task = getattr(data, "task", None)
    on = f" on {type(task).__name__}" if task is not None else ""
    rewards = getattr(module, "rewards", {})
    weights = ", ".join(f"{name} x {reward.weight:g}" for name, reward in rewards.items())
    return f"{path} ({count / 1e6:,.1f} M parameters){on}{f'; rewards: {weights}' if weights else ''}"


def _data(trainer: Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
