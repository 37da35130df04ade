r"""Letters of a multiple choice as language models write them: find the one behind the delimiter.

**One** letter must be named. An answer that names two different ones is wrong, so that hedging never pays; the same one
twice is one. A letter is named most clearly by a *label*: alone on a line, in brackets, at the start of a line before
`)`, `.` or `:`, or behind "answer", "option", "choice" or "letter". Where there are labels, they alone count, so that
the text of a choice may hold capitals ("B) Vitamin C"), and reasons may follow. Where there are none, capitals that
stand alone count, except the article "A". Labels may be lower case. The text of a choice without its letter is no
answer. Each line below shows a text and what is read in it; the tests check this very table.

Labels:
    'B'                         B
    ' b\n'                      B
    'B.'                        B
    '(B)'                       B
    '[b]'                       B
    'B) Paris'                  B
    'b. Paris'                  B
    'B: Paris'                  B
    'B) Vitamin C'              B
    'B. A city in France'       B
    'The answer is B.'          B
    'the answer is b'           B
    'Answer: (B)'               B
    'Option c is right.'        C
    'A is the right one'        A
    "the answer is 'a'"         A
    'B\nA is wrong because'     B
Capitals:
    'B Paris'                   B
    'B - Paris'                 B
    'I choose C because'        C
    'Paris, so B'               B
    'A Paris'                   A
Markdown, LaTeX, full-width characters:
    '**B**'                     B
    '**(b)** Paris'             B
    '\\boxed{\\text{B}}'        B
    '$\\boxed{D}$'              D
    '\uff08\uff22\uff09'        B
Two letters:
    'B or C'                    None
    'b or c'                    None
    'B, C'                      None
    'A/B'                       None
    '(A) (B)'                   None
    'A and B'                   None
    'B) or C)'                  None
    'The answer is B or C.'     None
    'A. red\nB. blue'           None
    'B ##### C'                 None
    'B ##### B'                 B
No letter:
    ''                          None
    'E'                         None
    'AB'                        None
    'Paris'                     None
    'A city in France'          None
    'The answer is a city.'     None
    'not B'                     None
    'The answer is not (B).'    None
    "I'd say C++"               None
    'B = 3 T'                   None
    'an A-level'                None
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LETTERS = "ABCD"
"""The names of the choices, in their order."""

LONGEST = 2_000
"""Characters that are read: an answer is short, and a policy that rambles must not hold up an evaluation."""
_CHARACTERS: dict[int, int | str | None] = {
    **{0xFEE0 + ascii_code: ascii_code for ascii_code in range(0x21, 0x7F)},  # the full-width forms
    **dict.fromkeys(map(ord, "\u2018\u2019"), "'"),
    **dict.fromkeys(map(ord, '*`${}"\u201c\u201d'), " "),  # Markdown, LaTeX and quotes around a letter
}
_WRAPPING = re.compile(r"\\(?:boxed|text(?:bf|rm)?|math(?:bf|rm)|[()\[\]])|(?<!\w)'|'(?!\w)")  # LaTeX, quotes

# A letter that stands alone: not in a word, a unit (25 °C), an elision (I'd, d'Or), C++, C#, A-level or an equation.
_BEFORE = r"(?<![\w°-])(?<!\w')"
_AFTER = r"(?![\w+-]|'\w|\#(?!\#)|[ ]?=)"
_NO_ARTICLE = r"(?![ ](?!(?:or|and|nor|is|because|since)\b)[a-z])"  # "a or b", but not "a city"
_CUED = rf"{_BEFORE}(?:[A-Db-d]|a{_NO_ARTICLE}){_AFTER}"
_JOIN = r"[ ]?(?:[,;/&]|\b(?:or|and|nor)\b)[ ]?"

_LABEL = re.compile(
    rf"""
    (?<!\w) [(\[] [ ]? (?P<bracketed> [A-Da-d] ) [ ]? [)\]]
    | ^ (?P<alone> [A-Da-d] ) (?: [ ]? [).:] )? $
    | ^ (?P<listed> [A-Da-d] ) [ ]? [).:] (?!\w)
    | \b (?i: answer | option | choice | letter ) (?i: [ ] (?: is | would[ ]be | must[ ]be | should[ ]be ) )?
        [ ]? :? \s? (?P<cued> {_CUED} )
    | {_BEFORE} (?P<judged> [A-D] ) (?= [ ] is [ ] (?: the [ ] )? (?: right | correct | best | true | answer ) \b )
    """,
    re.VERBOSE | re.MULTILINE,
)
_CAPITAL = re.compile(rf"{_BEFORE}(?:[BCD]|A{_NO_ARTICLE}){_AFTER}")
_ANOTHER = re.compile(rf"{_JOIN}\(?(?P<letter>{_CUED})")
_DENIAL = re.compile(r"(?:\bnot|n't|\bnor|\bexcept|\bneither)[ ]$", re.IGNORECASE)


def parse_letter(text: str) -> str | None:
    """Read the one letter that the text behind the delimiter names; the module's docstring shows how.

    Args:
        text: anything a policy may write; what stands beyond `LONGEST` characters is not read. It never raises.

    Returns:
        `A`, `B`, `C` or `D`; None where no letter, or more than one, is named, or where one is denied ("not B").
    """
    text = _WRAPPING.sub(" ", text[:LONGEST].translate(_CHARACTERS))
    text = "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)
    named = set(_named(_LABEL, text)) or set(_named(_CAPITAL, text))
    return named.pop() if len(named) == 1 and named <= set(LETTERS) else None


def same_letter(answer: str, gold: str) -> bool:
    """Whether both texts name the same one letter; False also where either names none.

    Args:
        answer: the text that followed the delimiter.
        gold: the gold letter.
    """
    letter = parse_letter(answer)
    return letter is not None and letter == parse_letter(gold)


def _named(rule: re.Pattern[str], text: str) -> Iterator[str]:
    """The letters that a rule finds, with those that "or", "and" or a comma adds to one; "not" for one that is denied."""
    for match in rule.finditer(text):
        yield "not" if _DENIAL.search(text, max(0, match.start() - 9), match.start()) else _letter(match)
        end = match.end()
        while another := _ANOTHER.match(text, end):
            yield another["letter"].upper()
            end = another.end()


def _letter(match: re.Match[str]) -> str:
    """The letter of a match, upper case."""
    return (match[match.lastgroup] if match.lastgroup else match[0]).upper()
