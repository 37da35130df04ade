"""The text of each token, for pictures of a reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atmanrl.rollouts.split import decode


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, one piece for each id; together they are `decode(tokenizer, ids)`.

    A character made of several tokens stands whole with the last of them, the others are empty; so are special tokens.
    """
    text = decode(tokenizer, ids)
    found: list[str] = []
    done = start = known = 0  # `done` characters are told; the window begins at `start`, all before `known` is told
    for end in range(1, len(ids) + 1):
        # a token's text depends on its neighbours (spaces, bytes), hence windows; not whole prefixes, they are quadratic
        before, window = decode(tokenizer, ids[start:known]), decode(tokenizer, ids[start:end])
        piece = window[len(before) :] if window.startswith(before) else None
        if piece is None or not text.startswith(piece, done):
            prefix = decode(tokenizer, ids[:end])
            piece = prefix[done:] if text.startswith(prefix) else None
        found.append(piece or "")
        if piece:
            done, start, known = done + len(piece), known, end
    if found:
        found[-1] += text[done:]
    return found
