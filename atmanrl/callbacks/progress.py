"""A progress bar that counts updates."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from atmanrl.horizon import planned_updates
from atmanrl.pulse import listen, stop_listening

PATIENCE = 10.0
"""Seconds of an update before a bar of its own shows how far it is."""
SILENCE = 60.0
"""Seconds of an update between two lines about it, where there is no terminal."""

SHOWN = {
    "reward": "reward {:+.3f}",
    "accuracy": "right {:.0%}",
    "cot/mean_length": "CoT {:.0f}",
    "kl": "KL {:.4f}",
    "grad_norm": "grad {:.2f}",
    "loss": "loss {:.3f}",
    "time/rollout": "sampled {:.1f} s",
    "time/reward": "rewarded {:.1f} s",
    "time/update": "updated {:.1f} s",
    "val/pass_at_1": "held-out right {:.0%}",
    "val/loss": "held-out loss {:.3f}",
}
"""Metrics shown below the bar, where a run has them."""


class MetricsBelow(Progress):
    """A bar with its metrics below it, which take a second line where a terminal is narrow, and never the bar's room."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar, and each task's field `metrics`."""
        yield self.make_tasks_table(self.tasks)
        yield from (Text(task.fields["metrics"]) for task in self.tasks if task.fields["metrics"])


class UpdateProgress(ProgressBar):
    """Shows updates done and the time left, and below them the metrics of `SHOWN` with the seconds of each phase.

    Where an update takes more than `PATIENCE` seconds a second bar shows how far it is. On a terminal both are live;
    elsewhere a line is printed every twentieth of the run, and one a minute within a long update.
    """

    def __init__(self) -> None:
        super().__init__()
        self.console = Console()
        self.enabled = True
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.work: TaskID | None = None
        self.began = self.printed = 0.0

    def disable(self) -> None:
        """Show nothing: Lightning says so on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self.enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._start("train", planned_updates(trainer), trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count an update."""
        shown = [
            text.format(float(trainer.callback_metrics[k]))
            for k, text in SHOWN.items()
            if k in trainer.callback_metrics
        ]
        self._advance(trainer.global_step, "  ".join(shown))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._start("test", int(sum(trainer.num_test_batches)), 0)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count a batch."""
        self._advance(batch_idx + 1, "")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._start("predict", int(sum(trainer.num_predict_batches)), 0)

    on_predict_batch_end = on_test_batch_end
    on_predict_end = on_test_end

    def _start(self, name: str, total: int | None, done: int) -> None:
        if not self.enabled:
            return
        self.bar = MetricsBelow(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"),
            TimeRemainingColumn(), console=self.console, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task(name, total=total, completed=done, metrics="")
        self.bar.start()
        self.began = self.printed = time.monotonic()
        listen(self._beat)

    def _beat(self, work: str, done: int, total: int) -> None:
        """Show how far the work on an update is, or on a batch of an evaluation, once it has taken a while."""
        now = time.monotonic()
        if self.bar is None or now - self.began < PATIENCE:
            return
        name = f"  {work}"
        if self.work is None:
            self.work = self.bar.add_task(name, metrics="")
        self.bar.update(self.work, description=name, completed=done, total=total or None)
        if not self.console.is_terminal and now - self.printed >= SILENCE:
            self.printed = now
            self.console.print(f"{name} {done}/{total}" if total else name, highlight=False, soft_wrap=True)

    def _advance(self, done: int, metrics: str) -> None:
        if self.bar is None:
            return
        self.began = self.printed = time.monotonic()
        if self.work is not None:
            self.bar.remove_task(self.work)
            self.work = None
        self.bar.update(self.task, completed=done, metrics=metrics)
        task = self.bar.tasks[0]
        every = 1 if task.total is None else max(1, int(task.total) // 20)
        if not self.console.is_terminal and (done % every == 0 or done == task.total):
            of = f"/{int(task.total)}" if task.total is not None else ""
            left = f"{task.time_remaining:.0f} s left" if task.time_remaining is not None else ""
            self.console.print(f"{task.description} {done}{of}  {metrics}  {left}", highlight=False, soft_wrap=True)

    def _stop(self) -> None:
        stop_listening(self._beat)
        if self.bar is not None:
            self.bar.stop()
            self.bar = self.work = None
