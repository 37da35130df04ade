"""A progress bar that counts traces."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TraceProgress:
    """Shows traces done, mean saliency of the last batch, and time left; without a terminal, in a line for each batch.

    Args:
        total: number of traces.
        done: how many an earlier run has probed.
    """

    def __init__(self, total: int, done: int) -> None:
        self.console = Console()
        # a batch may take minutes: the speed is taken over a day
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console,
            speed_estimate_period=86400, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.total, self.begun, self.at = total, done, done
        self.seconds = 0.0
        self.task = self.bar.add_task("probe", total=total, completed=done, metrics="")

    def __enter__(self) -> TraceProgress:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        self.bar.stop()

    def advance(self, count: int, seconds: float, metrics: str) -> None:
        """Add `count` traces that took `seconds`, and show the metrics of their batch."""
        self.at, self.seconds = self.at + count, self.seconds + seconds
        self.bar.update(self.task, completed=self.at, metrics=metrics)
        if not self.console.is_terminal:
            left = self.seconds / (self.at - self.begun) * (self.total - self.at)
            line = f"probe {self.at}/{self.total}  {metrics}  {left:.0f} s left"
            self.console.print(line, highlight=False, soft_wrap=True)
