"""Numbers and operators in a reasoning's text, and what is changed about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from random import Random

from atmanrl.tasks.answers import parse_number

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?!\w|\.\d)")
"""A number as it stands in a text, without its sign: `1,250.50`."""

SWAPPED = {"+": "-", "-": "+", "*": "/", "/": "*", "×": "÷", "÷": "×"}
"""An operator, and its inverse, which takes its place."""

_OPERATOR = re.compile(r"(?<=[\d)%])(\s*)([-+*/×÷])(\s*)(?=[$(]?\d)")


@dataclass(frozen=True)
class Number:
    """A number in a text.

    Attributes:
        start: the number of characters before it.
        text: its characters.
        value: what they say.

    Example:
        In `12 + 30 = 42`: `Number(start=5, text="30", value=Decimal(30))`.
    """

    start: int
    text: str
    value: Decimal | Fraction

    @property
    def end(self) -> int:
        """The number of characters before its end."""
        return self.start + len(self.text)

    def replaced(self, text: str, number: str) -> str:
        """Put another number into its place in the text in which it stands."""
        return text[: self.start] + number + text[self.end :]


def numbers(text: str) -> list[Number]:
    """All numbers of a text, from left to right; a comma or point behind one belongs to the sentence."""
    matches = [(match.start(), match[0].rstrip(",.")) for match in NUMBER.finditer(text)]
    values = [(start, number, parse_number(number)) for start, number in matches]
    return [Number(start, number, value) for start, number, value in values if value is not None]


def other_number(number: str, rng: Random) -> str:
    """Return a number of the same length and notation and another value: one digit is another one.

    Args:
        number: such as `1,250`. The first digit of several does not become 0.
        rng: chooses the digit and what becomes of it.
    """
    places = [i for i, character in enumerate(number) if character.isdecimal()]
    place = rng.choice(places)
    lowest = 1 if place == places[0] and len(places) > 1 else 0
    digit = rng.choice([d for d in range(lowest, 10) if str(d) != number[place]])
    return f"{number[:place]}{digit}{number[place + 1 :]}"


def swap_operators(text: str) -> str:
    """Put the inverse in the place of every operator between two numbers: `3 + 4 * 2` becomes `3 - 4 / 2`."""
    return _OPERATOR.sub(lambda match: f"{match[1]}{SWAPPED[match[2]]}{match[3]}", text)
