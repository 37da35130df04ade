"""The beginning of a reasoning: its first words, as the tokens that the policy wrote."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.offsets import offsets

WORD = re.compile(r"\S+")
"""A word, for cutting a reasoning short: characters up to white space, as `str.split` has them."""


def cot_prefix(rollout: Rollout, tokenizer: Any, percent: int) -> list[int]:
    """Return the tokens of the first `percent` % of a reasoning's words, rounded down to whole words.

    They are the first of `rollout.cot_ids`: nothing is tokenized anew. A token that also holds a part of the next word is
    left out; white space behind the last word goes with what was cut off. 100 gives the whole reasoning as it is.

    Args:
        rollout: with a reasoning.
        tokenizer: of the policy.
        percent: from 0 to 100.
    """
    return cot_prefixes(rollout, tokenizer, [percent])[0]


def cot_prefixes(rollout: Rollout, tokenizer: Any, percents: Sequence[int]) -> list[list[int]]:
    """Return the tokens of the first words of a reasoning (see `cot_prefix`) for several percentages."""
    ids = rollout.cot_ids
    known = offsets(tokenizer, ids, rollout.parts.splitter.visible(tokenizer))
    ends = [word.end() for word in WORD.finditer(known.text)]
    prefixes = []
    for percent in percents:
        words = len(ends) * percent // 100
        length = len(ids) if percent == 100 else bisect_right(known.ends, ends[words - 1]) - 1 if words else 0
        while not known.whole[length]:
            length -= 1
        prefixes.append(ids[:length])
    return prefixes
