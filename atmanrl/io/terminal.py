"""What commands print: errors and notes on one line of standard error, and text for terminals of any encoding and width."""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from atmanrl.io import escape

if TYPE_CHECKING:
    from rich.console import Console

# as wide as what they stand for, so that tables keep their shape, but for arrows and comparisons, which stand in prose
_LOOKALIKES = {
    "–": "-", "—": "-", "−": "-", "±": "~", "×": "x", "·": ".", "…": ".", "→": "->", "≥": ">=", "≤": "<=", "≈": "~",
    "‘": "'", "’": "'", "“": '"', "”": '"', "█": "#", "▇": "#", "▆": "#", "▅": "+", "▄": "+", "▃": "-", "▂": "-", "▁": ".",
}  # fmt: skip
HANDLER = "atmanrl.lookalike"
"""Name of the codec error handler that writes what an encoding lacks in its own characters."""


def encodable(text: str, encoding: str | None) -> str:
    """Replace what an encoding lacks by what looks alike, or else by its escape."""
    encoding = encoding or "utf-8"
    return text.encode(encoding, HANDLER).decode(encoding)


def output_encoding() -> str | None:
    """Return the encoding of standard output; None where that is none, or takes any character."""
    return getattr(sys.stdout, "encoding", None)


def write_anything(stream: TextIO) -> None:
    """Let a stream replace what its encoding lacks, see `encodable`, instead of raising an error."""
    if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors=HANDLER)


def print_whole(console: Console, renderable: Any) -> None:
    """Print a table with all its numbers: a terminal that is too narrow breaks its lines, rather than cut them off."""
    from rich.measure import Measurement  # which `atmanrl --help` does not wait for

    width = console.width
    console.width = max(width, Measurement.get(console, console.options.update(width=10_000), renderable).minimum)
    console.print(renderable)
    console.width = width


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


def _lookalike(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    written = (_LOOKALIKES.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in characters)
    return "".join(written), error.end


codecs.register_error(HANDLER, _lookalike)
