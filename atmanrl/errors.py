"""The one base class of everything that a user can mend. It imports nothing of the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Wrong input. The message is one sentence or two: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; every other exception keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the error's name where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def prefixed(where: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Put a place before the message of a `UserError` that is raised within, which becomes a `kind`."""
    try:
        yield
    except UserError as error:
        raise kind(f"{where}: {error}") from error


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is written nearly so, letters of either case counting as the same."""
    by_letters = {each.lower(): each for each in names}
    close = difflib.get_close_matches(name.lower(), by_letters, n=1, cutoff=0.7)
    return by_letters[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str], before: str = "", after: str = "") -> str | None:
    """Return the question, with the nearest name between two texts; None where no name is near."""
    near = nearest(name, names)
    return None if near is None else f"did you mean {before}{near}{after}?"


class Interrupted(Exception):
    """A run has saved its state and ends because a signal asked for it.

    Args:
        message: what was saved, and how the run goes on.
        status: the exit status of the command.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
