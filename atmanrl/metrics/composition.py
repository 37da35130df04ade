"""What a chain of thought is made of: the shares of numbers, stop words and symbols among its spaCy tokens (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from atmanrl.metrics.base import RolloutMetric, Stage
from atmanrl.metrics.columns import COMPOSITION
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc


@dataclass(frozen=True, slots=True)
class Composition:
    """Counts of spaCy tokens, white space left out; the three classes are disjoint.

    Attributes:
        tokens: all tokens.
        numbers: tokens of `TokenClass.NUMBER`.
        stop_words: tokens of `TokenClass.STOP_WORD`.
        symbols: tokens of `TokenClass.SYMBOL`.
    """

    tokens: int
    numbers: int
    stop_words: int
    symbols: int

    def _pct(self, count: int) -> float:
        return 100.0 * count / self.tokens if self.tokens else float("nan")

    @property
    def numbers_pct(self) -> float:
        """Numbers in per cent of the tokens; NaN without tokens."""
        return self._pct(self.numbers)

    @property
    def stop_words_pct(self) -> float:
        """Stop words in per cent of the tokens; NaN without tokens."""
        return self._pct(self.stop_words)

    @property
    def symbols_pct(self) -> float:
        """Symbols in per cent of the tokens; NaN without tokens."""
        return self._pct(self.symbols)


def count_tokens(doc: Doc) -> Composition:
    """Counts the classes in a document from `build_tagger`; pure."""
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


class TokenComposition(RolloutMetric):
    """The shares of numbers, stop words and symbols among the spaCy tokens of all reasoning counted.

    `compute()` returns `numbers_pct`, `stop_words_pct` and `symbols_pct`, scalars in per cent of the tokens of all
    texts together (a long text weighs more than a short one), NaN where there was no token.

    Args:
        pipeline: name or path of a spaCy pipeline, loaded at the first update; None counts by lexical rules, without a
            download.
        stages: when it runs; see `RolloutMetric`.
    """

    columns = COMPOSITION
    default_stages = ("training", "validation", "test")
    training_prefix = "cot/"
    tokens: Tensor
    numbers: Tensor
    stop_words: Tensor
    symbols: Tensor

    def __init__(self, pipeline: str | None = None, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self.pipeline = pipeline
        for state in ("tokens", "numbers", "stop_words", "symbols"):
            self.add_state(state, default=torch.tensor(0), dist_reduce_fx="sum")

    def setting(self) -> dict[str, object]:
        """What told the classes of words apart."""
        return {"tagger": self.pipeline or "lexical rules"}

    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Count the tokens of the reasoning.

        Raises:
            PipelineError: the pipeline cannot be loaded (first update only).
        """
        texts = [rollout.parts.cot for rollout in batch.rollouts]
        for doc in _shared_tagger(self.pipeline).pipe(texts, batch_size=64):
            counts = count_tokens(doc)
            self.tokens += counts.tokens
            self.numbers += counts.numbers
            self.stop_words += counts.stop_words
            self.symbols += counts.symbols

    def compute(self) -> dict[str, Tensor]:
        """The three shares, float scalars on the metric's device."""
        return {
            "numbers_pct": 100 * self.numbers / self.tokens,
            "stop_words_pct": 100 * self.stop_words / self.tokens,
            "symbols_pct": 100 * self.symbols / self.tokens,
        }
