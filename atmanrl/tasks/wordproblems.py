"""`WordProblems`: a seeded generator of GSM8K-shaped stories, for a policy small enough to train on a laptop."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from atmanrl.tasks.base import INSTRUCTION
from atmanrl.tasks.counting_stories import boxes, collection, comparison, reading
from atmanrl.tasks.generated import GeneratedTask
from atmanrl.tasks.money_stories import garden, saving, shopping, wages
from atmanrl.tasks.stories import Step, Story

STORIES: tuple[Callable[[Random], Story], ...] = (
    collection, shopping, wages, boxes, reading, comparison, garden, saving,
)  # fmt: skip
"""Every kind of story, drawn with equal chance."""


class WordProblems(GeneratedTask):
    """Stories of two to four steps with + - x and exact division, some about money.

    Every problem of a split is different from every other, not only in its wording (see `stories.Story.key`), and the
    splits share none (see `generated.split_of`).

    Args:
        train_size: number of training problems.
        test_size: number of test problems.
        seed: another seed, other problems.
        instruction: see `Task`; the laptop policy was trained without one.

    Raises:
        TaskError: a size below 1, or more problems asked for than there are.
    """

    def __init__(
        self, train_size: int = 20_000, test_size: int = 2_000, seed: int = 0, instruction: str = INSTRUCTION
    ) -> None:
        super().__init__(f"atmanrl word problems/{seed}", train_size, test_size, seed, instruction)

    def draw(self, rng: Random) -> Story:
        """Draw a story of any kind, its wording with its numbers."""
        return rng.choice(STORIES)(rng)

    def tell(self, drawn: Story, rng: Random) -> tuple[str, tuple[Step, ...]]:
        """Return the story and its steps."""
        return drawn.text, drawn.steps
