"""Splitting a completion at the delimiter into reasoning and answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atmanrl.tasks import DELIMITER


@dataclass(frozen=True)
class Parts:
    """A completion in its parts.

    Attributes:
        text: the whole completion, without special tokens.
        cot: the reasoning: all before the delimiter, or the whole text where there is none.
        answer: what follows the delimiter, stripped; None without a delimiter.
        cot_length: number of tokens that lie wholly before the delimiter; where there is none, of all tokens but the
            special ones at the end.
        straddle: the end of the reasoning, where it shares a token with the delimiter, to which that token belongs.
    """

    text: str
    cot: str
    answer: str | None
    cot_length: int
    straddle: str = ""


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of token ids, special tokens left out and spaces as they are."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def split(tokenizer: Any, ids: Sequence[int], delimiter: str = DELIMITER) -> Parts:
    """Split token ids at the first delimiter of their text, by character offsets.

    Offsets come from decoding prefixes, so this holds for any tokenizer: also where a token straddles the delimiter or
    where a character is made of several byte tokens.
    """
    text = decode(tokenizer, ids)
    start = text.find(delimiter)
    if start < 0:
        length = len(ids)
        while length and ids[length - 1] in tokenizer.all_special_ids:
            length -= 1
        return Parts(text, text, None, length)
    low, high = 0, len(ids)  # the shortest prefix of tokens that holds the whole delimiter has `high` of them
    while high - low > 1:
        middle = (low + high) // 2
        if delimiter in decode(tokenizer, ids[:middle]):
            high = middle
        else:
            low = middle
    cot_length = high
    before = text
    while len(before) > start or not text.startswith(before):  # a prefix may end within a character
        cot_length -= 1
        before = decode(tokenizer, ids[:cot_length])
    return Parts(text, text[:start], text[start + len(delimiter) :].strip(), cot_length, text[len(before) : start])
