r"""Markdown, LaTeX, HTML and Unicode's look-alikes around an answer, brought to one form before it is read.

`plain` takes the markup away and leaves a `MARK` in its place, so that a reader can still tell `**A** city` from
`A city` and `is**-3**` from `is-3`. What is written is never changed: `_.5_` is `.5` between marks.
"""

from __future__ import annotations

import re
from html import unescape
from unicodedata import category, decimal, decomposition

MARK = "\u2063"
"""Stands for a piece of markup; Unicode's invisible separator, which no keyboard has."""

THIN = "\u2009"
"""Stands for a space that does not break: in English notation it parts the thousands."""

PLUS = "\u2064"
"""Stands between a whole number and its fraction; Unicode's invisible plus, which is for just that."""

_MINUS = "\u02d7\u058a\u05be\u1400\u2010\u2011\u2012\u2013\u2052\u2212\u2796\u2e5d\ufe32\ufe63"
_CHARACTERS: dict[str, str] = {
    **dict.fromkeys(_MINUS, "-"),  # an em dash and its longer kin are punctuation
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a\u300c\u300d\u2033", '"'),
    **dict.fromkeys("\u2044\u2215\u29f8", "/"),
    **dict.fromkeys("\u3010\u3014\u27e6", "["),
    **dict.fromkeys("\u3011\u3015\u27e7", "]"),
    "\u066b": ".",  # the decimal separator, thousands separator and per cent sign of Arabic
    "\u066c": ",",
    "\u066a": "%",
    MARK: MARK,
    PLUS: PLUS,
}
_SAME_MEANING = {"<font>", "<wide>", "<narrow>", "<small>", "<circle>", "<square>", "<compat>", "<vertical>"}


class _Folding(dict[int, str]):
    """Each character's plain form, worked out when it is first met; a table of all would take a second to build."""

    def __missing__(self, code: int) -> str:
        self[code] = _plain_character(chr(code))
        return self[code]


def _plain_character(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    kind = category(character)
    if kind in ("Cf", "Me") or "\ufe00" <= character <= "\ufe0f":  # invisible, or the frame of a keycap
        return ""
    if kind == "Zs":
        return character if character == " " else THIN
    if kind == "Nd":
        return str(decimal(character))
    form, *parts = decomposition(character).split() or [""]
    if form == "<fraction>":
        return PLUS + "".join(chr(int(part, 16)) for part in parts).replace("\u2044", "/")
    if form in _SAME_MEANING:
        return "".join(_plain_character(chr(int(part, 16))) for part in parts)
    return character


_FOLDED = _Folding()

_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31}[0-9]{0,2});")
_TAG = re.compile(r"</?(?P<name>[A-Za-z][A-Za-z0-9]{0,15}) ?[^<>\n]{0,200}>")
_SPACING = re.compile(r"\\[,:;> ]|(?<!~)~(?!~)")  # LaTeX's spaces; Markdown's `~~` is markup
_COMMA = re.compile(r"\{,\}(?:\\!)?|,\\!|\\!")
_ESCAPE = re.compile(r"\\([-.+/%#&|<>'\"])")  # Markdown may put a backslash before any punctuation
_COMMAND = re.compile(r"\\(?:([A-Za-z]{1,40})\*?|.)", re.DOTALL)
_COMMANDS = {
    **dict.fromkeys(("times", "cdot", "ast"), "\u00d7"),
    **dict.fromkeys(("quad", "qquad", "enspace", "thinspace", "nobreakspace", "space"), THIN),
    **dict.fromkeys(("minus", "textminus"), "-"),
    **dict.fromkeys(("pounds", "euro", "yen", "dollar", "textdollar"), "$"),
    **dict.fromkeys(("circ", "degree", "textdegree"), "\u00b0"),
    **dict.fromkeys(("newline", "par", "linebreak"), "\n"),
}
_QUOTES_AND_MARKDOWN = re.compile(r"[*`~\"${}]|(?<![^\W_])_+|_+(?![^\W_])")


def plain(text: str, commands: dict[str, str] | None = None) -> str:
    """Return the text without its markup, in linear time; it never raises.

    Args:
        text: anything a policy may write.
        commands: LaTeX commands by name that the reader wants to see, and what shall stand for them; the other ones
            become a `MARK`, but for spaces, signs and line breaks.

    Returns:
        Full-width, circled and mathematical letters and the digits of all scripts as ASCII, minus signs and hyphens as
        `-`, curly quotes straight, HTML's entities and Markdown's escapes resolved, other spaces than the common one
        as `THIN`, and a `MARK` for each piece of markup: `**`, `_`, backticks, `$`, braces, double quotes, tags,
        LaTeX commands and what LaTeX puts around a formula.
    """
    known = _COMMANDS | (commands or {})
    text = _ENTITY.sub(lambda match: unescape(match[0]), text) if "&" in text else text
    text = text.translate(_FOLDED)
    if "<" in text:
        text = _TAG.sub(_tag, text)
    if "\\" in text or "{" in text or "~" in text:
        text = _ESCAPE.sub(r"\1", _SPACING.sub(THIN, _COMMA.sub(_comma, text)))
        text = _COMMAND.sub(lambda match: known.get(match[1] or "", MARK), text)
    return text


def _tag(match: re.Match[str]) -> str:
    """A sign for a power or a new line, a mark for any other tag."""
    if match[0].startswith("<sup"):
        return "^"
    return "\n" if match["name"].lower() in ("br", "p", "div", "li") else MARK


def _comma(match: re.Match[str]) -> str:
    """A comma in braces or before a negative space is a comma; a negative space alone is nothing."""
    return "," if "," in match[0] else ""


def marked(text: str) -> str:
    """Return a text from `plain` with a `MARK` for the single characters of Markdown, LaTeX and quotes, too.

    That is a step of its own because a reader of fractions needs the braces.
    """
    return _QUOTES_AND_MARKDOWN.sub(MARK, text)
