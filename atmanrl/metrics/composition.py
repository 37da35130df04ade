"""What a chain of thought is made of: the shares of numbers, stop words and symbols among its spaCy tokens (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import COMPOSITION
from atmanrl.metrics.conditions import LEXICAL_RULES, TAGGER
from atmanrl.metrics.ratio import RatioMetric
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


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
    from atmanrl.metrics.tagger import TokenClass, classify  # loads spaCy, which a machine that trains need not have

    counts = np.bincount(classify(doc), minlength=len(TokenClass)).tolist()
    return Composition(
        tokens=sum(counts) - counts[TokenClass.SPACE],
        numbers=counts[TokenClass.NUMBER],
        stop_words=counts[TokenClass.STOP_WORD],
        symbols=counts[TokenClass.SYMBOL],
    )


@cache
def _shared_tagger(pipeline: str | None) -> Language:
    """One tagger a process and pipeline: built on first use, so that metrics pickle and deep-copy without it."""
    from atmanrl.metrics.tagger import build_tagger

    return build_tagger(pipeline)


class TokenComposition(RatioMetric):
    """The shares of numbers, stop words and symbols among the spaCy tokens of all reasoning counted.

    `compute()` returns `numbers_pct`, `stop_words_pct` and `symbols_pct`, scalars in per cent of the tokens of all
    texts together (a long text weighs more than a short one), NaN where there was no token.

    Args:
        pipeline: name or path of a spaCy pipeline, loaded at the first update; None counts by lexical rules, without a
            download.
        stages: when it runs; see `RolloutMetric`.
    """

    columns = COMPOSITION
    conditions = {"tagger": TAGGER}
    default_stages = ("training", "validation", "test")
    training_prefix = "cot/"

    def __init__(self, pipeline: str | None = None, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self.pipeline = pipeline

    def setting(self) -> dict[str, object]:
        """Return the name of the tagger."""
        return {"tagger": self.pipeline or LEXICAL_RULES}

    def contributions(self, batch: RolloutBatch, policy: Policy | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Count the tokens of each reasoning.

        Raises:
            PipelineError: the pipeline cannot be loaded (first update only).
        """
        texts = [rollout.parts.cot for rollout in batch.rollouts]
        docs = _shared_tagger(self.pipeline).pipe(texts, batch_size=64)
        counts = torch.tensor([count_tokens(doc) for doc in docs]).view(-1, len(Composition._fields))
        return {key: (100 * counts[:, 1 + place], counts[:, 0]) for place, key in enumerate(COMPOSITION)}
