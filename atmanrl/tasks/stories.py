"""What stories are made of: people and things, the steps of a working, and a story of a few such steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

PEOPLE = (
    ("Anna", "she", "her"), ("Ben", "he", "his"), ("Clara", "she", "her"), ("David", "he", "his"),
    ("Emma", "she", "her"), ("Felix", "he", "his"), ("Grace", "she", "her"), ("Henry", "he", "his"),
    ("Iris", "she", "her"), ("Jack", "he", "his"), ("Kate", "she", "her"), ("Liam", "he", "his"),
    ("Maria", "she", "her"), ("Noah", "he", "his"), ("Olivia", "she", "her"), ("Peter", "he", "his"),
)  # fmt: skip
THINGS = ("apples", "stickers", "marbles", "cards", "shells", "stamps", "pencils", "beads", "buttons", "coins")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the working.

    Attributes:
        clause: the words before the sum.
        expression: the sum.
        result: what it comes to.
        unit: of the result.
        money: whether the result is told as an amount of dollars.

    Example:
        `Step("The boxes hold", "4 * 12", 48, "apples")`
    """

    clause: str
    expression: str
    result: int
    unit: str
    money: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """A problem told in English, with its working. The wording is no part of what makes it this problem (see `key`).

    Attributes:
        kind: name of the function that told it.
        numbers: the numbers that were drawn, in a fixed order that does not depend on the order of the telling.
        text: the sentences and the question.
        steps: two to four steps; the last one's result is the answer.

    Example:
        `Story("garden", (4, 5, 2, 3), "Anna plants 4 rows of roses with 5 in each row. ...", (Step(...), ...))`
    """

    kind: str
    numbers: tuple[int, ...]
    text: str
    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        """What makes it this problem and no other, whatever its wording: `boxes/4/12/6/3`."""
        return "/".join([self.kind, *map(str, self.numbers)])


def wordings(rng: Random) -> Callable[..., str]:
    """Return a function that draws one of the texts that it is called with, each with equal chance."""
    return lambda *texts: rng.choice(texts)
