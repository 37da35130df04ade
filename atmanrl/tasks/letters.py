r"""Letters of a multiple choice as language models write them: find the one behind the delimiter.

**One** letter must be named. An answer that names two different ones is wrong, so that hedging never pays; the same one
twice is one. A letter is named most clearly by a *label*: alone on a line, in brackets, in bold or quotes at the start
of a line, or before `)`, `.` or `:` there, or behind "answer", "option", "choice" or "letter". Where there are labels,
they alone count, so that the text of a choice may hold capitals ("B) Vitamin C"), and reasons may follow. Where there
are none, capitals count that begin a line or a sentence or stand behind a word that announces one ("so B"), except the
article "A". Labels may be lower case. Each line below shows a text and what is read in it; the tests check this table.

The text of a choice without its letter is no answer, however near its words come to one ("Vitamin C", "A city in
France"): the letter is what was asked for. So whoever knows the choices gives them along, and their texts are passed
over: of the choice "city in France", "A city in France" reads A.

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
    '**A** paralysis'           A
    'The answer -> B'           B
    '- B'                       B
Capitals:
    'B Paris'                   B
    'B - Paris'                 B
    'I choose C because'        C
    'Paris, so B'               B
    'not B but C'               C
    'A Paris'                   A
Markdown, LaTeX, full-width characters:
    '**B**'                     B
    '**(b)** Paris'             B
    '\\boxed{\\text{B}}'        B
    '$\\boxed{D}$'              D
    '_B_'                       B
    '__B__'                     B
    '<b>B</b>'                  B
    '\uff08\uff22\uff09'        B
    '\u24b7'                    B
Two letters:
    'B or C'                    None
    'B, or C'                   None
    'B C'                       None
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
    'Vitamin C'                 None
    'The answer is vitamin C.'  None
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
from collections.abc import Iterable, Iterator

from atmanrl.tasks.markup import MARK, PLUS, THIN, marked, plain

LETTERS = "ABCD"
"""The names of the choices, in their order."""

LONGEST = 10_000
"""Characters that are read: an answer is short, and a policy that rambles must not hold up an evaluation."""

_TEXT = "\u2026"  # stands for the text of a choice; `plain` leaves none of it in an answer
_QUOTE = re.compile(r"(?<!\w)'|'(?!\w)")
_GAP = re.compile(rf"[{MARK} ]{{2,}}+")
_WRAPPED = re.compile(rf"{MARK}([A-Da-d])[ ]?{MARK}")
_BULLET = re.compile(r"(?:[-+>#|=\u2022\u00b7\u2192\u21d2]++ )+")

# A letter that stands alone: not in a word, a unit (25 °C), an elision (I'd, d'Or), C++, C#, A-level or an equation.
_BEFORE = r"(?<![\w°-])(?<!\w')"
_AFTER = rf"(?![\w+-]|'\w|\#(?!\#)|{MARK}?[ ]?=)"
_NO_ARTICLE = r"(?![ ](?!(?:or|and|nor|is|because|since)\b)[a-z])"  # "a or b", but not "a city"
_CUED = rf"{_BEFORE}(?:[A-Db-d]|a{_NO_ARTICLE}){_AFTER}"
_JOIN = rf"[{MARK} ]*+(?:(?:[,;/&|]|\b(?:or|and|nor|maybe|perhaps|possibly)\b)[ ]?)++"

_LABEL = re.compile(
    rf"""
    (?<! [\w(\[] ) [(\[]++ [ ]? (?P<bracketed> [A-Da-d] ) {MARK}? [.:]? [ ]? [)\]]
    | ^ (?P<alone> [A-Da-d] ) {MARK}? [ ]? [).:;,!?\]>]*+ $
    | ^ (?P<listed> [A-Da-d] ) {MARK}? [ ]? [).:] (?!\w)
    | ^ (?P<wrapped> [A-Da-d] ) {MARK} {_AFTER}
    | \b (?i: ans(?:wer)? | option | choice | letter )
        (?i: [ ] (?: is | would[ ]be | must[ ]be | should[ ]be ) )? [ ]? (?: [:=\u2192\u21d2] | [-=]>? )? \s?
        (?P<cued> {_CUED} )
    | {_BEFORE} (?P<judged> [A-D] ) (?= {MARK}? [ ] is [ ] (?: the [ ] )? (?: right | correct | best | true | answer ) \b )
    """,
    re.VERBOSE | re.MULTILINE,
)
_ANNOUNCING = (
    "choose chose choosing pick picked select selected prefer say guess think believe mark get is be so thus hence "
    "therefore then conclude means with for but maybe perhaps probably likely definitely certainly clearly surely"
)
_KEPT = {"", *LETTERS.lower(), "answer", "option", "choice", "letter", "not", *_ANNOUNCING.split()}
_ANNOUNCED = "|".join(rf"(?<=\b{word}[ ])" for word in _ANNOUNCING.split())
_CAPITAL = re.compile(
    rf"""
    (?= [A-D] ) {_BEFORE}
    (?: ^ | (?<= [(\[.:!?>\#|\u2192\u21d2] ) | (?<= [(\[.:!?>\#|\u2192\u21d2\u2014-] [ ] )
        | (?<= \b [A-D] [ ] ) | (?<= \b [A-D] {MARK} [ ] ) | (?i: {_ANNOUNCED} ) )
    (?: [BCD] | A{_NO_ARTICLE} ) {_AFTER}
    """,
    re.VERBOSE | re.MULTILINE,
)
_ANOTHER = re.compile(rf"{_JOIN}\(?(?P<letter>{_CUED})")
_DENYING = re.compile(r"\bnot|n't|\bnor|\bexcept|\bneither", re.IGNORECASE)
_DENIAL = re.compile(rf"(?:{_DENYING.pattern})[ ]$", re.IGNORECASE)


def parse_letter(text: str, choices: Iterable[str] = ()) -> str | None:
    """Read the one letter that the text behind the delimiter names; the module's docstring shows how.

    Args:
        text: anything a policy may write; what stands beyond `LONGEST` characters is not read. Reading it takes linear
            time and never raises.
        choices: the texts of the choices, which are passed over wherever they stand in `text`.

    Returns:
        `A`, `B`, `C` or `D`; None where no letter, or more than one, is named, or where one is denied ("not B").
    """
    text = _without(_lines(text[:LONGEST]), choices)
    named = set(_named(_LABEL, text)) or set(_named(_CAPITAL, text))
    return named.pop() if len(named) == 1 and named <= set(LETTERS) else None


def same_letter(answer: str, gold: str, choices: Iterable[str] = ()) -> bool:
    """Return whether both texts name the same one letter; False also where either names none.

    Args:
        answer: the text that followed the delimiter.
        gold: the gold letter.
        choices: the texts of the choices, see `parse_letter`.
    """
    letter = parse_letter(answer, choices)
    return letter is not None and letter == parse_letter(gold)


def _lines(text: str) -> str:
    """The lines that hold something, without markup and bullets, single spaces within; a wrapped letter keeps a mark."""
    text = _QUOTE.sub(MARK, marked(plain(text))).replace(THIN, " ").replace(PLUS, " ")
    text = _GAP.sub(lambda gap: MARK if MARK in gap[0] else " ", text)
    text = _WRAPPED.sub(rf" \1{PLUS} ", text).replace(MARK, " ").replace(PLUS, MARK)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line[bullet.end() :] if (bullet := _BULLET.match(line)) else line for line in lines if line)


def _without(text: str, choices: Iterable[str]) -> str:
    """The text with dots for each choice in it, in whatever case; choices that are a letter or announce one stay."""
    for choice in sorted({_lower(_lines(choice)) for choice in choices}, key=len, reverse=True):
        if choice.strip(MARK) in _KEPT:
            continue
        lowered, kept, end = _lower(text), [], 0
        start = lowered.find(choice)
        while start >= 0:
            after = start + len(choice)
            if not (lowered[start - 1 : start].isalnum() and choice[0].isalnum()) and not (
                lowered[after : after + 1].isalnum() and choice[-1].isalnum()
            ):
                kept += [text[end:start], _TEXT]
                end = after
                start = lowered.find(choice, after)
            else:
                start = lowered.find(choice, start + 1)
        text = "".join([*kept, text[end:]])
    return text


def _lower(text: str) -> str:
    """The text in lower case, as long as before: the few characters that would become two stay."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _named(rule: re.Pattern[str], text: str) -> Iterator[str]:
    """The letters that a rule finds, with those that "or", "and" or a comma adds to one; "not" for one that is denied."""
    may_deny = _DENYING.search(text) is not None
    end = 0
    while match := rule.search(text, end):  # behind the list that was read, so that each list is read once
        is_denied = may_deny and _DENIAL.search(text, max(0, match.start() - 9), match.start())
        yield "not" if is_denied else match[match.lastgroup or 0].upper()
        end = match.end()
        while another := _ANOTHER.match(text, end):
            yield another["letter"].upper()
            end = another.end()
