r"""Numbers as language models write them: find the answer behind the delimiter, compare it with the gold answer.

The **first** number in the text is the answer, for two reasons: a policy often rambles on ("72. Question 2: ..."), and
a list of guesses must not be worth more than its first guess. A run of digits, dots and commas is read whole, in
English notation, or not at all: "3,5" is neither 3 nor 35. Nothing is calculated, except that a fraction is a number.
Each line below shows a text and what is read in it; the tests check this very table.

Thousands, decimals, exponents:
    '1,000'                     1000
    '1,234,567.50'              1234567.5
    '7.0'                       7
    '7.'                        7
    '.5'                        0.5
    '1e3'                       1000
    '1.000.000'                 None
    '3,5'                       None
    '1.2.3'                     None
    '1\u202f000'                1000
    '1 000'                     1
Signs; a dash right behind a letter is a hyphen, and one with a space after it, behind a word, is punctuation:
    '-3'                        -3
    '- 3'                       -3
    '\u22123'                   -3
    '\u20133'                   -3
    '-$7'                       -7
    '$-7'                       -7
    '+3'                        3
    'COVID-19'                  19
    'The answer - 72'           72
    '---\n72'                   72
Currencies, units and sentences; a percentage is the number before its sign, as GSM8K writes it:
    '$1,234.50'                 1234.5
    '7 apples'                  7
    '50%'                       50
    ' 72\n'                     72
    'The answer is 72.'         72
    '72 ##### 5'                72
    '3 * 24 = 72'               3
    '3 or 4'                    3
    'in 2 years, 72'            2
Fractions and mixed numbers:
    '3/4'                       3/4
    '-3 / 4'                    -3/4
    '1 1/2'                     3/2
    '1\u00bd'                   3/2
    '60/hour'                   60
    '5/0'                       None
Markdown, LaTeX, full-width characters; the digits of other scripts are not read:
    '**72**'                    72
    '\\boxed{72}'               72
    '$\\boxed{1{,}000}$'        1000
    '\\$1\\,000'                1000
    '-\\frac{3}{4}'             -3/4
    '\uff17\uff12'              72
    '\u0667\u0662'              None
No number:
    ''                          None
    'seventy-two'               None
    'NaN'                       None
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

MAX_CHARACTERS = 100
"""A number written with more characters than this is no answer: exact arithmetic on it would only cost time."""

_MAX_EXPONENT_DIGITS = 3  # 1e999 still fits in memory when a fraction makes an integer of it; 1e999999999 does not

_CHARACTERS = {
    **{0xFEE0 + ascii_code: ascii_code for ascii_code in range(0x21, 0x7F)},  # the full-width forms
    **dict.fromkeys(map(ord, "\u2010\u2011\u2013\u2212\ufe63"), "-"),  # hyphens, en dash, minus signs
    **dict.fromkeys(map(ord, "\u2009\u202f"), ","),  # thin spaces part thousands; as commas their places are checked
    0x00A0: " ",
    0x2044: "/",  # the fraction slash
    0x00BC: " 1/4",
    0x00BD: " 1/2",
    0x00BE: " 3/4",
}
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([0-9.,]++)\}\{([0-9.,]++)\}")

# Possessive quantifiers (`++`) never give back what they took, so a match takes linear time on any text.
_NUMBER = re.compile(
    r"""
    (?: (?P<whole> [0-9]++ ) [ ]++ (?= [0-9]++ [ ]?/[ ]? [0-9] ) )?             # the 1 of "1 3/4"
    (?P<number> (?: (?<![\w.]) \. )? [0-9] [0-9.,]*+ (?: [eE] [+-]? [0-9]++ )? )
    (?: [ ]?/[ ]? (?P<denominator> [0-9] [0-9.,]*+ ) )?
    """,
    re.VERBOSE,
)
_ENGLISH = re.compile(
    r"(?: [0-9]{1,3} (?: , [0-9]{3} )++ | [0-9]*+ ) (?: \. [0-9]++ )? (?: [eE] [+-]? (?P<exponent> [0-9]++ ) )?",
    re.VERBOSE,
)
_BETWEEN_SIGN_AND_DIGITS = " \t\\$€£¥₹₩"


def parse_number(text: str) -> Decimal | Fraction | None:
    """Read the first number in the text that follows the delimiter; the module's docstring shows how.

    Args:
        text: anything a policy may write. Reading it takes linear time and never raises.

    Returns:
        The exact value, a `Fraction` where a fraction or mixed number is written, or None where no number stands,
        where the first one is not in English notation, or where it is longer than `MAX_CHARACTERS`.
    """
    text = text.translate(_CHARACTERS).replace("{,}", ",").replace("\\,", ",").replace("\\!", "")
    text = _LATEX_FRACTION.sub(r" \1/\2", text)  # the space makes "1\frac{1}{2}" a mixed number, not 11/2
    match = _NUMBER.search(text)
    if match is None or len(match[0]) > MAX_CHARACTERS:
        return None
    value = _value(match["whole"], match["number"], match["denominator"])
    if value is None or not _is_negative(text[: match.start()]):
        return value
    return -value if isinstance(value, Fraction) else value.copy_negate()  # `-decimal` would round to 28 digits


def same_number(answer: str, gold: str) -> bool:
    """Whether both texts hold the same number, exactly: 7.0 is 7 and 0.75 is 3/4, but 0.33 is not 1/3.

    Args:
        answer: the text that followed the delimiter.
        gold: the gold answer.

    Returns:
        False also where either text holds no number.
    """
    number, gold_number = parse_number(answer), parse_number(gold)
    return number is not None and gold_number is not None and number == gold_number


def _value(whole: str | None, number: str, denominator: str | None) -> Decimal | Fraction | None:
    """The unsigned value of `number`, `number/denominator` or `whole number/denominator`."""
    above = _decimal(number)
    if above is None or denominator is None:
        return above
    below = _decimal(denominator)
    if not below:  # unreadable, or zero
        return None
    return Fraction(whole or 0) + Fraction(above) / Fraction(below)


def _decimal(token: str) -> Decimal | None:
    """The value of digits in English notation; None for other notations."""
    token = token.rstrip(".,")  # the end of a sentence
    match = _ENGLISH.fullmatch(token)
    if match is None or len(match["exponent"] or "") > _MAX_EXPONENT_DIGITS:
        return None
    return Decimal(token.replace(",", ""))


def _is_negative(before: str) -> bool:
    """Whether the text before a number ends in a minus sign, rather than in a hyphen, a dash or a Markdown rule."""
    head = before.rstrip(_BETWEEN_SIGN_AND_DIGITS)
    if not head.endswith("-"):
        return False
    is_spaced = before[len(head) :][:1].isspace()
    previous = (head[:-1].rstrip() if is_spaced else head[:-1])[-1:]
    return not (previous.isalnum() or previous == "-")
