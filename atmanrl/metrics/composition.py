"""What a chain of thought is made of: the shares of numbers, stop words and symbols among its spaCy tokens (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import COMPOSITION
from atmanrl.metrics.conditions import LEXICAL_RULES, TAGGER
from atmanrl.metrics.ratio import RatioMetric
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch


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
        from atmanrl.metrics.tagger import (
            Composition,
            build_tagger,
            count_tokens,
        )  # on use, so that what trains does without spaCy

        texts = [rollout.parts.cot for rollout in batch.rollouts]
        docs = build_tagger(self.pipeline).pipe(texts, batch_size=64)
        counts = torch.tensor([count_tokens(doc) for doc in docs]).view(-1, len(Composition._fields))
        return {key: (100 * counts[:, 1 + place], counts[:, 0]) for place, key in enumerate(COMPOSITION)}
