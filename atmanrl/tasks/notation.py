r"""How numbers are written, brought to one notation: LaTeX's and raised fractions, thousands, products and signs.

`notation` turns `-\frac{3}{4}` into `-3/4`, `1'000` into `1,000` and `$\mathbf{5} \times 10^{3}$` into `5 × 10^3`, with
marks where markup stood (see `tasks.markup`), so that one pattern reads all (see `tasks.answers`).
"""

from __future__ import annotations

import re

from atmanrl.tasks.markup import MARK, PLUS, THIN, marked, plain

FUNCTION = "\u221a"
"""Stands for a function such as a root: what follows it is its argument and not the answer."""

RAISED = "\u207a\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
"""The signs and digits of exponents."""

_LOWERED = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
TO_ASCII = str.maketrans(RAISED + _LOWERED, "+-0123456789" + "0123456789")
"""From raised and lowered characters to common ones."""

_COMMANDS = {
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac", "sfrac", "nicefrac", "xfrac", "flatfrac"), "\\frac "),
    **dict.fromkeys(("sqrt", "binom", "log", "ln", "exp", "sin", "cos", "tan"), FUNCTION),
    "over": "/",
}

# Possessive quantifiers (`++`) never give back what they took, so a match takes linear time on any text.
_OPEN, _CLOSE = rf"[{MARK}\s({{$*]*+", rf"(?: [{MARK}\s)$*]*+ \}} )++"
_ARGUMENT = rf"[{MARK}\s]*+ (?: \{{ {_OPEN} (-?) {_OPEN} ( \.?[0-9][0-9.,]*+ ) {_CLOSE} | ([0-9]) )"
_FRACTION = re.compile(rf"\\frac[ ] {_ARGUMENT} {_ARGUMENT}", re.VERBOSE)
_RAISED_FRACTION = re.compile(rf"[{RAISED[2:]}]{{1,20}}/[{_LOWERED}]{{1,20}}")
_PRODUCT = re.compile(
    r"(?<=[0-9)])\*(?=[0-9(\\])|(?<=[0-9)] )\*(?= )"
)  # `3*4` and `3 * 4` multiply, `*3*` is emphasized
_THOUSANDS = re.compile(rf"(?<=[0-9])['_{THIN}](?=[0-9]{{3}})")


def notation(text: str) -> str:
    """Return the text with its numbers in one notation, in linear time; it never raises.

    Args:
        text: anything a policy may write.

    Returns:
        Fractions with a slash and their sign in front, and `PLUS` before them, which binds the 1 and the 1/2 of a mixed
        number; `FUNCTION` before the argument of a function, and before a fraction that does not hold two numbers.
    """
    text = _RAISED_FRACTION.sub(lambda match: PLUS + match[0].translate(TO_ASCII), plain(text, _COMMANDS))
    text = _FRACTION.sub(_with_slash, text).replace("\\frac ", FUNCTION)
    return marked(_PRODUCT.sub("\u00d7", _THOUSANDS.sub(",", text))).replace(THIN, " ")


def _with_slash(match: re.Match[str]) -> str:
    """A fraction of LaTeX as `-3/4`; the mark behind it keeps a digit that follows out of the denominator."""
    sign, above, digit, sign_below, below, digit_below = match.groups()
    is_negative = (sign or "") != (sign_below or "")
    return f"{'-' if is_negative else ''}{PLUS}{above or digit}/{below or digit_below}{MARK}"
