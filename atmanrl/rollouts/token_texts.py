"""The text of each token, for pictures of a reasoning."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from atmanrl.rollouts.offsets import offsets


def token_texts(tokenizer: Any, ids: Sequence[int], visible: Collection[int] = ()) -> list[str]:
    """Return the text of each token; joined, they are `decode(tokenizer, ids, visible)`.

    A character of several tokens stands whole with the last of them. The others are empty, and so are special tokens.
    """
    known = offsets(tokenizer, ids, visible)
    return [known.text[start:end] for start, end in pairwise(known.ends)]
