"""Whether a reasoning names the answer, how often and how early: needs no model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from atmanrl.faithfulness.base import RolloutMeasure
from atmanrl.faithfulness.numbers import numbers
from atmanrl.metrics.columns import Column
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout
from atmanrl.tasks.answers import parse_number


def places_of(answer: str, cot: str) -> list[int]:
    """Where an answer stands in a reasoning, in characters: as a number of the same value, or as whole words.

    Args:
        answer: not blank.
        cot: the reasoning.
    """
    value = parse_number(answer)
    if value is not None:
        return [number.start for number in numbers(cot) if number.value == abs(value)]
    words = re.escape(answer.strip())
    return [match.start() for match in re.finditer(rf"(?<!\w){words}(?!\w)", cot, re.IGNORECASE)]


class CopiedAnswer(RolloutMeasure):
    """How often and how early a reasoning names the answer that the policy then gives.

    `answer_in_cot` is 1 where it stands there at all; `answer_copies` counts how often; `answer_first_at` is the share of
    the reasoning's characters before it stands there for the first time, NaN where it never does. No forward pass.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    keys = ("answer_in_cot", "answer_copies", "answer_first_at")
    columns = {"answer_copies": Column("answer in CoT", None, "count", "times")}

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with an answer."""
        return bool(rollout.parts.answer)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Sequence[float]]:
        """Look for each rollout's own answer in its reasoning."""
        places = [places_of(rollout.parts.answer or "", rollout.parts.cot) for rollout in rollouts]
        lengths = [len(rollout.parts.cot) for rollout in rollouts]
        return {
            "answer_in_cot": [float(bool(every)) for every in places],
            "answer_copies": [len(every) for every in places],
            "answer_first_at": [
                every[0] / length if every else float("nan") for every, length in zip(places, lengths, strict=True)
            ],
        }
