"""Text from a model, a data set or a user, made safe for where it is shown: one function for each kind of output.

All of them build on `visible`: what does not print, and what would turn the text around it, is shown as its escape, so
that nobody's text can command a terminal, break a file or pass for other text. Numbers need none of this.
"""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup, escape

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, the escapes of terminals among them
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # ends of lines, and turns of the writing direction
    "\ud800-\udfff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"  # no characters, and those that nobody sees
)

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "–": "--", "±": r"$\pm$",
}  # fmt: skip

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What spreadsheets take for the beginning of a formula, or pass over before one."""


def visible(text: str) -> str:
    r"""Show what does not print as its escape (`\x1b`, `\u202e`, `\ud800`); line ends and tabs stay."""
    return _UNSEEN.sub(lambda match: _escape(match[0]), text.replace("\r\n", "\n"))


def terminal(text: str) -> str:
    """Escape a text for a terminal: escape sequences are shown, not obeyed."""
    return visible(text)


def line(text: str) -> str:
    """Escape a text so that it stays on one line, wherever that is."""
    return visible(text).replace("\n", " ").replace("\t", " ")


def is_line(text: str) -> bool:
    """Return whether a text can be a name as it stands: in a column's head, in a table, in a file of one line each."""
    return bool(text.strip()) and line(text) == text


def html(text: str) -> Markup:
    """Escape a text for an element or an attribute of HTML and XML."""
    return escape(visible(text))


def figure(text: str) -> str:
    """Escape a text for matplotlib, which takes dollars for mathematics and writes control characters into its SVG."""
    return visible(text).replace("\t", " ").replace("$", r"\$")


def latex(text: str) -> str:
    """Escape a text for a line of LaTeX: no command, comment or column of its own."""
    return "".join(_LATEX.get(character, character) for character in line(text))


def markdown(text: str) -> str:
    """Escape a text for a cell of a Markdown table: no markup, HTML or column of its own."""
    return re.sub(r"([\\`*_{}\[\]|#~])", r"\\\1", line(text).translate({38: "&amp;", 60: "&lt;", 62: "&gt;"}))


def csv_cell(value: Any) -> Any:
    """Escape a cell of a CSV file: an apostrophe keeps a spreadsheet from calculating a text; numbers stay."""
    if not isinstance(value, str):
        return value
    return visible(f"'{value}" if value.startswith(_FORMULA) and not _is_number(value) else value)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
