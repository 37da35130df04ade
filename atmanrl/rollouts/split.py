"""Splitting a completion at the delimiter into reasoning and answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atmanrl.rollouts.offsets import offsets, special_ids
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


def split(tokenizer: Any, ids: Sequence[int], delimiter: str = DELIMITER) -> Parts:
    """Split token ids at the first delimiter of their text, by character offsets.

    This holds for any tokenizer: also where a token straddles the delimiter or a character is made of several tokens.
    """
    known = offsets(tokenizer, ids)
    text = known.text
    start = text.find(delimiter)
    if start < 0:
        special, length = special_ids(tokenizer), len(ids)
        while length and ids[length - 1] in special:
            length -= 1
        return Parts(text, text, None, length)
    cot_length = bisect_right(known.ends, start) - 1
    while not known.whole[cot_length]:
        cot_length -= 1
    straddle = text[known.ends[cot_length] : start]
    return Parts(text, text[:start], text[start + len(delimiter) :].strip(), cot_length, straddle)
