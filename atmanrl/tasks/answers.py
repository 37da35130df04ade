r"""Numbers as language models write them: find the answer behind the delimiter, compare it with the gold answer.

The **first** number in the text is the answer, for two reasons: a policy often rambles on ("72. Question 2: ..."), and
a list of guesses must not be worth more than its first guess. A run of digits, dots and commas is read whole, in
English notation, or not at all: "3,5" is neither 3 nor 35. Nothing is calculated, except that a fraction is a number.
Each line below shows a text and what is read in it; the tests check this very table.

Thousands, decimals, exponents; powers are read of ten alone:
    '1,000'                     1000
    '1,234,567.50'              1234567.5
    '7.0'                       7
    '7.'                        7
    '.5'                        0.5
    '1e3'                       1000
    '1.5 \\times 10^{3}'        1500
    '10\u207b\u00b2'            0.01
    '2^3'                       None
    '1.000.000'                 None
    '3,5'                       None
    '1.2.3'                     None
    '1\u202f000'                1000
    "1'000"                     1000
    '1_000'                     1000
    '1 000'                     1
Signs; a dash right behind a letter is a hyphen, and one with spaces around it, behind a word, is punctuation:
    '-3'                        -3
    '- 3'                       -3
    '\u22123'                   -3
    '\u20133'                   -3
    '\u20143'                   3
    '-$7'                       -7
    '$-7'                       -7
    '-(3)'                      -3
    '-(-3)'                     3
    '-**3**'                    -3
    '-\\boxed{3}'               -3
    'minus 3'                   -3
    '+3'                        3
    'COVID-19'                  19
    'The answer - 72'           72
    '**Answer** - 72'           72
    'The answer is**-72**'      -72
    '---\n72'                   72
Currencies, units and sentences; a percentage is the number before its sign, as GSM8K writes it:
    '$1,234.50'                 1234.5
    '7 apples'                  7
    '7 thousand'                7
    '50%'                       50
    '72^\\circ'                 72
    ' 72\n'                     72
    'The answer is 72.'         72
    '72 ##### 5'                72
    '3 * 24 = 72'               3
    '3 or 4'                    3
    'in 2 years, 72'            2
Fractions and mixed numbers:
    '3/4'                       3/4
    '-3 / 4'                    -3/4
    '3/(-4)'                    -3/4
    '1 1/2'                     3/2
    '1\u00bd'                   3/2
    '2\u2154'                   8/3
    '60/hour'                   60
    '5/0'                       None
    '1/2/2024'                  None
LaTeX's fractions; where one is not of two numbers, or a function stands, nothing is read:
    '\\frac{ 3 }{ 4 }'          3/4
    '\\frac12'                  1/2
    '\\cfrac{-3}{4}'            -3/4
    '-1\\tfrac{1}{2}'           -3/2
    '{3 \\over 4}'              3/4
    '\\frac{3x}{4}'             None
    '\\sqrt{16}'                None
Markdown, LaTeX, HTML, full-width characters, the digits of other scripts:
    '**72**'                    72
    '_.5_'                      0.5
    '\\boxed{72}'               72
    '$\\boxed{1{,}000}$'        1000
    '\\$1\\,000'                1000
    '<b>72</b>'                 72
    '&minus;72'                 -72
    '\uff17\uff12'              72
    '\u0667\u0662'              72
No number:
    ''                          None
    'seventy-two'               None
    'NaN'                       None
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from string import whitespace

from atmanrl.tasks.markup import MARK, PLUS
from atmanrl.tasks.notation import FUNCTION, RAISED, TO_ASCII, notation

MAX_CHARACTERS = 100
"""A number written with more characters than this is no answer: exact arithmetic on it would only cost time."""

_MAX_EXPONENT_DIGITS = 3  # 1e999 still fits in memory when a fraction makes an integer of it; 1e999999999 does not

# Possessive quantifiers (`++`) never give back what they took, so a match takes linear time on any text.
_GAP = rf"[{MARK} ()]*+"
_NUMBER = re.compile(
    rf"""
    (?: (?P<whole> [0-9]++ (?: ,[0-9]{{3}} )*+ ) (?: [{MARK} ]*+ {PLUS} | [ ]++ )             # the 1 of "1 3/4"
        (?= [0-9]++ [ ]? / [ ]? [0-9] ) )?
    (?P<number> (?: (?<![\w.]) \. )? [0-9] [0-9.,]*+ (?: [eE] [+-]? [0-9]++ )? )
    (?: {_GAP} / {_GAP} (?P<sign> -? ) {_GAP} (?P<denominator> \.?[0-9] [0-9.,]*+ ) (?P<date> /[0-9] )? )?
    (?P<times> {_GAP} [\u00d7xX\u00b7\u22c5] {_GAP} 10 (?= \^ | [{RAISED}] ) )?
    (?: \^ {_GAP} (?P<power> [+-]?[0-9]++ | [A-Za-z](?![A-Za-z]) ) | (?P<raised> [{RAISED}]++ ) )?
    """,
    re.VERBOSE,
)
_ENGLISH = re.compile(
    r"(?: [0-9]{1,3} (?: , [0-9]{3} )++ | [0-9]*+ ) (?: \. [0-9]++ )? (?: [eE] [+-]? (?P<exponent> [0-9]++ ) )?",
    re.VERBOSE,
)

_EXPONENT = re.compile(rf"[+-]?[0-9]{{1,{_MAX_EXPONENT_DIGITS}}}")

_OPENING = MARK + PLUS + "([{\\'"
_CURRENCIES = "\u00a2\u00a3\u00a4\u00a5\u0e3f" + "".join(map(chr, range(0x20A0, 0x20C1)))
_BETWEEN_SIGN_AND_DIGITS = " \t" + _OPENING + _CURRENCIES
_CURRENCY_CODE = re.compile(rf"(?<=[-\s{MARK}])(?:US|CA|AU|NZ|HK|USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF|Rs\.?)\Z")
_MINUS_WORD = re.compile(r"\b(?:minus|negative)\Z", re.IGNORECASE)


def parse_number(text: str) -> Decimal | Fraction | None:
    """Read the first number in the text that follows the delimiter; the module's docstring shows how.

    Args:
        text: anything a policy may write. Reading it takes linear time and never raises.

    Returns:
        The exact value, a `Fraction` where a fraction or mixed number is written, or None where no number stands,
        where the first one is not in English notation, or where it is longer than `MAX_CHARACTERS`.
    """
    text = notation(text)
    match = _NUMBER.search(text)
    if match is None or len(match[0]) > MAX_CHARACTERS:
        return None
    value, is_negative = _value(match), _is_negative(text[: match.start()])
    if value is None or is_negative is None:
        return None
    if not is_negative:
        return value
    return -value if isinstance(value, Fraction) else value.copy_negate()  # `-decimal` would round to 28 digits


def same_number(answer: str, gold: str) -> bool:
    """Return whether both texts hold the same number, exactly: 7.0 is 7 and 0.75 is 3/4, but 0.33 is not 1/3.

    Args:
        answer: the text that followed the delimiter.
        gold: the gold answer.

    Returns:
        False also where either text holds no number.
    """
    number, gold_number = parse_number(answer), parse_number(gold)
    return number is not None and gold_number is not None and number == gold_number


def _value(match: re.Match[str]) -> Decimal | Fraction | None:
    """The unsigned value of a match of `_NUMBER`; its denominator alone may carry a sign."""
    value = _scaled(match)
    if value is None or match["denominator"] is None:
        return value
    below = _decimal(match["denominator"])
    if not below or match["date"]:  # unreadable, or zero
        return None
    fraction = Fraction((match["whole"] or "0").replace(",", "")) + Fraction(value) / Fraction(below)
    return -fraction if match["sign"] else fraction


def _scaled(match: re.Match[str]) -> Decimal | None:
    """The value of the digits; powers are read of ten alone, `1.5e3`, `1.5 × 10^3` and `10^3`."""
    number = _decimal(match["number"])
    power = match["power"] or (match["raised"] or "").translate(TO_ASCII)
    if number is None or not power:
        return number
    if _EXPONENT.fullmatch(power) is None:
        return None
    if match["times"]:
        sign, digits, exponent = number.as_tuple()
        return Decimal((sign, digits, int(exponent) + int(power)))  # exact: products round to 28 digits
    return Decimal(f"1e{power}") if number == 10 and match["denominator"] is None else None


def _decimal(token: str) -> Decimal | None:
    """The value of digits in English notation; None for other notations."""
    token = token.rstrip(".,")  # the end of a sentence
    match = _ENGLISH.fullmatch(token)
    if match is None or len(match["exponent"] or "") > _MAX_EXPONENT_DIGITS:
        return None
    return Decimal(token.replace(",", ""))


def _is_negative(before: str) -> bool | None:
    """Whether the text before a number ends in a minus sign, rather than in a hyphen, a dash or a Markdown rule.

    Returns:
        None where it ends in a function, so that the number is not the answer.
    """
    head = before.rstrip(_BETWEEN_SIGN_AND_DIGITS)
    if head.endswith(FUNCTION):
        return None
    if code := _CURRENCY_CODE.search(head, max(0, len(head) - 4)):
        head = head[: code.start()].rstrip(_BETWEEN_SIGN_AND_DIGITS)
    if _MINUS_WORD.search(head, max(0, len(head) - 9)):
        return True
    if not head.endswith("-"):
        return False
    is_spaced = before[len(head) : len(head) + 1].isspace()
    head = head[:-1]
    if is_spaced:  # `**Answer** - 72` has a dash, `is **- 72**` a sign
        head = head.rstrip(MARK if head.endswith(MARK) else MARK + whitespace)
    elif head[-1:] in _OPENING and head.rstrip(_OPENING).endswith("-"):  # -(-3)
        return False
    return not (head[-1:].isalnum() or head[-1:] == "-")
