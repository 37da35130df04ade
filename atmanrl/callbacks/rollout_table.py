"""`RolloutTable`: some rollouts with their rewards, in the terminal and in W&B."""

from __future__ import annotations

import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from rich.text import Text

from atmanrl.errors import UserError
from atmanrl.grpo.experience import experience_of
from atmanrl.io import escape
from atmanrl.rollouts import Rollout


class RolloutTable(Callback):
    """Shows the first rollouts of an update, on the first process: what was asked and said, and what it is worth.

    Args:
        every_n_updates: how often a table is printed and sent to the loggers of W&B (as `completions`); 0 never.
        rollouts: how many rows are printed; W&B gets all rollouts of the batch.
        characters: longest text printed; longer ones show their ends, where the answer is.

    Raises:
        UserError: an option below its least value.
    """

    def __init__(self, every_n_updates: int = 0, rollouts: int = 8, characters: int = 400) -> None:
        least = {"every_n_updates": (every_n_updates, 0), "rollouts": (rollouts, 1), "characters": (characters, 10)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise UserError(f"rollout_table.{name} is {value}; give at least {lowest}.")
        self.every_n_updates, self.rollouts, self.characters = every_n_updates, rollouts, characters
        self.console = Console()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the update's rollouts."""
        update = trainer.global_step
        experience = experience_of(outputs)
        if experience is None or not self.every_n_updates or update % self.every_n_updates:
            return
        if not trainer.is_global_zero:
            return
        columns, rows = table(experience.rollouts)
        self.console.print(self._drawn(columns, rows[: self.rollouts], f"rollouts of update {update}"))
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                numbered = [[update, *map(_visible, row)] for row in rows]
                names = ["update", *map(escape.line, columns)]
                logger.log_table("completions", names, numbered, step=update - 1)  # as its metrics

    def _drawn(self, columns: list[str], rows: list[list[Any]], title: str) -> Table:
        """Draw two texts and what they are worth, name by name, so that many rewards leave room for the texts.

        Cells are plain `Text`: what looks like markup, or an escape, in a completion is shown as it stands.
        """
        drawn = Table(title=Text(title), show_lines=True)
        for name, ratio in (("prompt", 2), ("completion", 3), ("worth", 2)):
            drawn.add_column(Text(name), ratio=ratio, overflow="fold")
        for row in rows:
            cells = {name: self._shown(cell) for name, cell in zip(columns, row, strict=True)}
            texts = (cells.pop("prompt"), cells.pop("completion"))
            worth = "\n".join(f"{escape.line(name)} {cell}" for name, cell in cells.items() if cell)
            drawn.add_row(*map(Text, (*texts, worth)))
        return drawn

    def _shown(self, cell: Any) -> str:
        if isinstance(cell, float):
            return f"{cell:+.3f}"
        text = "" if cell is None else str(cell)
        if len(text) > self.characters:
            half = self.characters // 2
            text = f"{text[:half]} ... {text[-half:]}"
        return escape.terminal(text)


def table(rollouts: list[Rollout]) -> tuple[list[str], list[list[Any]]]:
    """Return names of columns, and a row for each rollout: texts, truth values, numbers, None where a reward abstained."""
    rewards = list(dict.fromkeys(name for r in rollouts for name in r.rewards))
    notes = list(dict.fromkeys(name for r in rollouts for name in r.notes))
    columns = ["problem", "prompt", "completion", "gold", "right", *rewards, *notes]
    rows = [
        [
            r.problem.id, r.prompt, r.parts.text, r.problem.gold, r.correct,
            *(_known(r.rewards.get(name)) for name in rewards),
            *(None if r.notes.get(name) is None else str(r.notes[name]) for name in notes),
        ]
        for r in rollouts
    ]  # fmt: skip
    return columns, rows


def _visible(cell: Any) -> Any:
    return escape.visible(cell) if isinstance(cell, str) else cell


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
