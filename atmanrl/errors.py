"""The one base class of everything that a user can mend, and how the command line says it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from atmanrl.io import escape


class UserError(ValueError):
    """Wrong input. The message is one sentence or two: what is wrong, where, and what to do.

    The command line prints the message alone and exits with status 1; every other exception keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """The first line of its message, or its name where it has none."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def prefixed(where: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Put a place before the message of a `UserError` that is raised within, which becomes a `kind`."""
    try:
        yield
    except UserError as error:
        raise kind(f"{where}: {error}") from error


class Interrupted(Exception):
    """A run has saved its state and ends because a signal asked for it.

    Args:
        message: what was saved, and how the run goes on.
        status: the exit status of the command.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def say_error(error: BaseException | str) -> None:
    """Print an error to standard error. Whatever text of models and data it quotes, no terminal obeys it."""
    _say(f"atmanrl: error: {error}")


def say_note(note: object) -> None:
    """Print a note to standard error, as `say_error` does."""
    _say(f"atmanrl: note: {note}")


def say_end(reason: object) -> None:
    """Print to standard error why a command has ended that nothing is wrong with, as `say_error` does."""
    _say(f"atmanrl: {reason}")


def _say(line: str) -> None:
    print(escape.terminal(line), file=sys.stderr, flush=True)
