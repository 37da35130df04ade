"""What marks the answer in completions of which nobody says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from atmanrl.rollouts.boxed import BoxedSplitter
from atmanrl.rollouts.messages import END_THINK
from atmanrl.rollouts.sentences import SentenceSplitter
from atmanrl.rollouts.split import DEFAULT, DelimiterSplitter, Splitter
from atmanrl.tasks.gsm8k import ANSWER_MARK

GSM8K_SPLITTER = DelimiterSplitter(ANSWER_MARK)

CANDIDATES: tuple[Splitter, ...] = (
    DEFAULT, BoxedSplitter(), GSM8K_SPLITTER, SentenceSplitter(), DelimiterSplitter(END_THINK)
)  # fmt: skip
"""Splitters that are tried, the surer ones first."""


def shown_marks(tokenizer: Any) -> frozenset[int]:
    """Return the ids of the special tokens that marks consist of, such as `</think>`, which texts must show."""
    return frozenset[int]().union(*(splitter.visible(tokenizer) for splitter in CANDIDATES))


class Marking(NamedTuple):
    """What marks the answer in a set of completions.

    Attributes:
        splitter: finds it.
        marked: how many completions have the mark.
        completions: how many there are.

    Example:
        `Marking(SentenceSplitter(), marked=97, completions=100)`
    """

    splitter: Splitter
    marked: int
    completions: int


def recognise(texts: Iterable[str]) -> Marking | None:
    """Return what marks the answer in most completions; the surer mark where as many have it.

    The package's own delimiter wins wherever it stands. A mark within the reasoning of a reasoning model, before its last
    `</think>`, does not count.

    Returns:
        None where no completion has any of the marks.
    """
    counts, completions = [0] * len(CANDIDATES), 0
    for text in texts:
        completions += 1
        thought = text.rfind(END_THINK)
        for number, splitter in enumerate(CANDIDATES):
            place = splitter.find(text)
            counts[number] += place is not None and place.start >= thought
    best = 0 if counts[0] else max(range(len(counts)), key=lambda number: (counts[number], -number))
    return Marking(CANDIDATES[best], counts[best], completions) if counts[best] else None
