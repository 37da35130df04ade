"""`MultiHop`: chains of arithmetic, as long as one likes. Does saliency still pay when chains grow long?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from atmanrl.tasks.base import INSTRUCTION, TaskError
from atmanrl.tasks.generated import GeneratedTask
from atmanrl.tasks.stories import PEOPLE, THINGS, Step

FEWEST, MOST = 2, 20
"""The shortest and the longest chain, in steps."""

LARGEST = 999
"""No number on the way is larger, nor smaller than 1."""

NAMES = (*(name for name, _, _ in PEOPLE), "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Zoe")
"""More people than the longest chain has links."""

PARTS = {
    2: "half", 3: "a third", 4: "a quarter", 5: "a fifth", 6: "a sixth", 7: "a seventh", 8: "an eighth", 9: "a ninth",
}  # fmt: skip
"""Divisors, and the words for what they leave."""

_APPLY = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@dataclass(frozen=True, slots=True)
class Chain:
    """A number to start with, and what is done to it step by step.

    Attributes:
        start: the number.
        operations: sign and second operand of each step.

    Example:
        `Chain(7, (("+", 5), ("*", 3)))` is (7 + 5) * 3.
    """

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def key(self) -> str:
        """What makes it this chain and no other, whichever way it is told: `7/+5/*3`."""
        return "/".join([str(self.start), *(f"{sign}{number}" for sign, number in self.operations)])

    @property
    def values(self) -> list[int]:
        """The start and what is reached after each step; the last one is the answer."""
        values = [self.start]
        for sign, number in self.operations:
            values.append(_APPLY[sign](values[-1], number))
        return values


class MultiHop(GeneratedTask):
    """A number goes through 2 to 20 steps of + - x and exact division, told as a recipe or as a row of people.

    Every step needs the result of the one before it, so the length of the chain is the number of hops. Each operation
    that keeps the number between 1 and 999 is as likely as another. Chains of a split are all different, and
    the splits share none: the numbers alone decide a chain's split, not seed, sizes or wording (see `generated.split_of`).

    Args:
        steps: the chain's length, one number or the shortest and the longest, each length being as likely as another.
            A problem's id names it (`multihop/0/test/12-steps/17`).
        train_size: number of training problems.
        test_size: number of test problems.
        seed: another seed, other problems.
        instruction: see `Task`.

    Raises:
        TaskError: a length or size out of its range, or more problems asked for than there are.
    """

    advice = ", or for longer chains"

    def __init__(
        self,
        steps: int | tuple[int, int] = (2, 8),
        train_size: int = 20_000,
        test_size: int = 2_000,
        seed: int = 0,
        instruction: str = INSTRUCTION,
    ) -> None:
        self.shortest, self.longest = (steps, steps) if isinstance(steps, int) else steps
        if not FEWEST <= self.shortest <= self.longest <= MOST:
            raise TaskError(f"MultiHop: steps is {steps}; give a number from {FEWEST} to {MOST}, or two, rising.")
        stream = f"atmanrl multi hop/{seed}/{self.shortest}-{self.longest}"
        super().__init__(stream, train_size, test_size, seed, instruction)

    def draw(self, rng: Random) -> Chain:
        """Draw a chain of one of the lengths."""
        return draw_chain(rng, rng.randint(self.shortest, self.longest))

    def tell(self, drawn: Chain, rng: Random) -> tuple[str, tuple[Step, ...]]:
        """Tell the chain as a recipe or as a row of people."""
        return rng.choice((tell_recipe, tell_people))(drawn, rng)

    def place(self, steps: tuple[Step, ...], number: int) -> str:
        """Name the chain's length: `12-steps/17`."""
        return f"{len(steps)}-steps/{number}"


def draw_chain(rng: Random, length: int) -> Chain:
    """Draw a chain of `length` steps whose numbers all lie between 1 and `LARGEST`."""
    value = start = rng.randint(2, 50)
    operations = []
    for _ in range(length):
        ranges: dict[str, Sequence[int]] = {
            "+": range(2, min(50, LARGEST - value) + 1),
            "-": range(2, min(50, value - 1) + 1),
            "*": range(2, min(9, LARGEST // value) + 1),
            "/": [number for number in PARTS if value % number == 0],
        }
        sign = rng.choice([sign for sign, numbers in ranges.items() if numbers])
        number = rng.choice(ranges[sign])
        operations.append((sign, number))
        value = _APPLY[sign](value, number)
    return Chain(start, tuple(operations))


def tell_recipe(chain: Chain, rng: Random) -> tuple[str, tuple[Step, ...]]:
    """Tell a chain as orders ("Start with 7. Add 5. Multiply by 3. ..."), and the steps of the working."""
    words = rng.choice((
        {"+": "Add {}.", "-": "Subtract {}.", "*": "Multiply by {}.", "/": "Divide by {}."},
        {"+": "Then add {}.", "-": "Then take away {}.", "*": "Then multiply by {}.", "/": "Then divide by {}."},
    ))  # fmt: skip
    sentences = [rng.choice((f"Start with {chain.start}.", f"Take the number {chain.start}."))]
    sentences += [words[sign].format(number) for sign, number in chain.operations]
    sentences.append(rng.choice(("Which number do you get?", "What is the result?")))
    values = chain.values
    steps = tuple(
        Step("This gives", f"{before} {sign} {number}", after, "so far")
        for (sign, number), before, after in zip(chain.operations, values, values[1:], strict=False)
    )
    return " ".join(sentences), steps


def tell_people(chain: Chain, rng: Random) -> tuple[str, tuple[Step, ...]]:
    """Tell a chain as a row of people ("Anna has 7 marbles. Ben has 5 more marbles than Anna. ..."), and the steps."""
    names = rng.sample(NAMES, len(chain.operations) + 1)
    thing = rng.choice(THINGS)
    sentences, values = [f"{names[0]} has {chain.start} {thing}."], chain.values
    steps: list[Step] = []
    for place, (sign, number) in enumerate(chain.operations):
        before, name = names[place], names[place + 1]
        amount = {
            "+": f"{number} more {thing} than",
            "-": f"{number} fewer {thing} than",
            "*": f"{'twice' if number == 2 else f'{number} times'} as many {thing} as",
            "/": f"{PARTS.get(number)} as many {thing} as",
        }[sign]
        sentences.append(f"{name} has {amount} {before}.")
        steps.append(Step(f"{name} has", f"{values[place]} {sign} {number}", values[place + 1], thing))
    sentences.append(f"How many {thing} does {names[-1]} have?")
    return " ".join(sentences), tuple(steps)
