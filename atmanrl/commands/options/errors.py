"""Errors in options, and what was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from atmanrl.commands.options import OPTIONS_ARE
from atmanrl.errors import UserError


class OptionError(UserError):
    """An option that cannot be, by its name or its type. The command ends with status 2.

    Args:
        message: a sentence.
        advice: what stands below it.
    """

    def __init__(self, message: str, advice: str = OPTIONS_ARE) -> None:
        super().__init__(message)
        self.advice = advice


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is written nearly so, letters of either case counting as the same."""
    by_letters = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_letters, n=1, cutoff=0.7)
    return by_letters[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str], before: str = "", after: str = "") -> str | None:
    """Return the question, with the nearest name between two texts; None where no name is near."""
    near = nearest(name, names)
    return None if near is None else f"did you mean {before}{near}{after}?"
