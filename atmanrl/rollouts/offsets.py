"""Which characters of a text come from which token, for any tokenizer and in linear time.

A text is decoded whole, once. Most tokens have a text of their own, which is decoded once for each token of the
vocabulary. What is left are runs of tokens that hold parts of characters: bytes, whose text depends on their neighbours.
There are two kinds. Byte-level tokenizers decode the bytes of all tokens together and put U+FFFD in the place of each
sequence that is no UTF-8. Tokenizers with byte fallback decode each run of `<0x23>` tokens alone, and give U+FFFD for
*every* byte of a run that is not UTF-8 as a whole, so that one byte changes the text of all before it in the run.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Literal
from weakref import WeakKeyDictionary

from transformers.convert_slow_tokenizer import bytes_to_unicode

REPLACEMENT = "\ufffd"
"""What stands in a text for bytes that are no UTF-8."""

_TAIL = rb"[\x80-\xbf]"
_CHARACTER = (
    re.compile(  # Unicode's table of well-formed UTF-8; what breaks off early is one U+FFFD, as is any other byte
        rb"[\xc2-\xdf]%(t)s?|\xe0(?:[\xa0-\xbf]%(t)s?)?|\xed(?:[\x80-\x9f]%(t)s?)?|[\xe1-\xec\xee\xef](?:%(t)s%(t)s?)?"
        rb"|\xf0(?:[\x90-\xbf](?:%(t)s%(t)s?)?)?|[\xf1-\xf3](?:%(t)s(?:%(t)s%(t)s?)?)?"
        rb"|\xf4(?:[\x80-\x8f](?:%(t)s%(t)s?)?)?|." % {b"t": _TAIL},
        re.DOTALL,
    )
)
_FALLBACK = re.compile(r"<0x([0-9A-F]{2})>")
_BYTE_OF: dict[str, int] = {character: byte for byte, character in bytes_to_unicode().items()}


Cuts = list[tuple[int, bool]]
"""For each token of a run, the end of its whole characters in the run's text, and whether that text may be cut there."""


@dataclass(frozen=True)
class Offsets:
    """A text and where its tokens end.

    Attributes:
        text: the text of all tokens, without special ones.
        ends: for k = 0 to n, how many whole characters of `text` the first k tokens give.
        whole: for k = 0 to n, whether the text may be cut behind token k: no character lies on both sides.

    Example:
        Of `a`, and of `é` in two tokens: `Offsets("aé", ends=[0, 1, 1, 2], whole=[True, True, False, True])`.
    """

    text: str
    ends: list[int]
    whole: list[bool]


@dataclass(frozen=True, slots=True)
class _Token:
    """A token's text in the middle of a text and at its start, or its bytes where it may hold a part of a character."""

    text: str = ""
    first: str = ""
    data: bytes = b""
    kind: Literal["text", "fallback", "byte-level"] = "text"


_TOKENS: WeakKeyDictionary[Any, dict[int, _Token]] = WeakKeyDictionary()


def decode(tokenizer: Any, ids: Sequence[int], visible: Collection[int] = ()) -> str:
    """Return the text of token ids, without special tokens (but for the `visible` ones) and with all spaces."""
    if not visible:
        text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text
    hidden = special_ids(tokenizer).difference(visible)
    shown = [token_id for token_id in ids if token_id not in hidden]
    text = tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of the tokens that `decode` leaves out by default."""
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}


def offsets(tokenizer: Any, ids: Sequence[int], visible: Collection[int] = ()) -> Offsets:
    """Return where each token's text ends.

    A tokenizer whose tokens' texts depend on more than the module's docstring says is served by decoding every prefix,
    which takes quadratic time.

    Args:
        tokenizer: of the policy.
        ids: of a text.
        visible: ids of special tokens whose names stand in the text.
    """
    text, special = decode(tokenizer, ids, visible), special_ids(tokenizer).difference(visible)
    places = [place for place, token_id in enumerate(ids) if token_id not in special]
    table = _TOKENS.setdefault(tokenizer, {})
    tokens = [table.get(ids[place]) or _learn(tokenizer, table, ids[place], visible) for place in places]
    texts: list[str] = []
    cuts: Cuts = []
    end = 0
    for kind, group in groupby(tokens, key=lambda token: token.kind):
        run = list(group)
        run_text, own = _RUNS[kind](run, is_first=not texts)
        cuts += [(end + cut, is_whole) for cut, is_whole in own]
        texts.append(run_text)
        end += len(run_text)
    if "".join(texts) != text:
        return _by_prefixes(tokenizer, ids, text, visible)
    every: Cuts = [(0, True)]
    cut_of = dict(zip(places, cuts, strict=True))
    for place in range(len(ids)):  # a special token ends where the one before it does
        every.append(cut_of.get(place, every[-1]))
    return Offsets(text, [end for end, _ in every], [is_whole for _, is_whole in every])


def _learn(tokenizer: Any, table: dict[int, _Token], token_id: int, visible: Collection[int]) -> _Token:
    """Add a token to the table of its tokenizer."""
    name = tokenizer.convert_ids_to_tokens(token_id) or ""
    if match := _FALLBACK.fullmatch(name):
        token = _Token(data=bytes.fromhex(match[1]), kind="fallback")
    else:
        visible = visible if token_id in visible else ()  # the others decide nothing about this one
        first = decode(tokenizer, [token_id], visible)
        token = _Token(decode(tokenizer, [token_id, token_id], visible).removeprefix(first), first)
        if REPLACEMENT in first and all(character in _BYTE_OF for character in name):
            token = _Token(data=bytes(_BYTE_OF[character] for character in name), kind="byte-level")
    table[token_id] = token
    return token


def _texts(run: list[_Token], is_first: bool) -> tuple[str, Cuts]:
    """The text of tokens that have one each."""
    texts = [token.text for token in run]
    if is_first:
        texts[0] = run[0].first
    return "".join(texts), [(end, True) for end in accumulate(map(len, texts))]


def _fallback(run: list[_Token], is_first: bool) -> tuple[str, Cuts]:
    """The text of single bytes: UTF-8, or else U+FFFD for each one."""
    data = b"".join(token.data for token in run)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return REPLACEMENT * len(data), [(end, True) for end in range(1, len(data) + 1)]
    starts = [byte & 0xC0 != 0x80 for byte in data] + [True]
    begun = list(accumulate(starts))  # how many characters begin up to each byte
    return text, [(begun[i] - (not starts[i + 1]), starts[i + 1]) for i in range(len(data))]


def _byte_level(run: list[_Token], is_first: bool) -> tuple[str, Cuts]:
    """The text of tokens of bytes; a U+FFFD belongs to the first token that has a byte of it."""
    data = b"".join(token.data for token in run)
    text = data.decode(errors="replace")
    borders = [0, *(match.end() for match in _CHARACTER.finditer(data))]
    cuts = []
    for end in accumulate(len(token.data) for token in run):
        count = bisect_right(borders, end) - 1
        is_whole = borders[count] == end
        if not is_whole and text[count] == REPLACEMENT:
            count, is_whole = count + 1, True
        cuts.append((count, is_whole))
    return text, cuts


def _by_prefixes(tokenizer: Any, ids: Sequence[int], text: str, visible: Collection[int]) -> Offsets:
    """The same by decoding each prefix: a prefix that does not begin the text ends within a character."""
    ends, whole = [0], [True]
    for k in range(1, len(ids) + 1):
        prefix = decode(tokenizer, ids[:k], visible)
        is_whole = len(prefix) >= ends[-1] and text.startswith(prefix)
        ends.append(len(prefix) if is_whole else ends[-1])
        whole.append(is_whole)
    ends[-1] = len(text)
    return Offsets(text, ends, whole)


_RUNS = {"text": _texts, "fallback": _fallback, "byte-level": _byte_level}
