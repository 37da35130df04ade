"""How good attributions are: what the answer loses, and regains, when a reasoning's tokens go and come in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from atmanrl.faithfulness.answers import ask
from atmanrl.faithfulness.erasure import PERCENTS, erasures
from atmanrl.models.policy import Policy
from atmanrl.probe.target import Target
from experiments.benchmarks.attribution import curves
from experiments.benchmarks.attribution.traces import Trace


@dataclass(frozen=True)
class Measure:
    """One of the numbers by which attributions are compared.

    Attributes:
        title: in tables.
        higher: whether a higher value is better.

    Example: `Measure("sufficiency", higher=False)`
    """

    title: str
    higher: bool


MEASURES = {
    "rise_deletion": Measure("deletion, RISE", False),
    "mas_deletion": Measure("deletion, MAS", False),
    "rise_insertion": Measure("insertion, RISE", True),
    "mas_insertion": Measure("insertion, MAS", True),
    "comprehensiveness": Measure("comprehensiveness", True),
    "sufficiency": Measure("sufficiency", False),
}
"""Areas (see `curves`), and ERASER's two (see `atmanrl.faithfulness.Erasure`), means over 1, 5, 10, 20 and 50 %."""


def score(policy: Policy, traces: Sequence[Trace], attributions: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return a value of each of `MEASURES` for every trace.

    Args:
        policy: the model that gave the answers.
        traces: B of them.
        attributions: of each, one number a token of the reasoning (its `end` may be left out); high where the answer
            needs the token.
    """
    orders = [curves.groups(scores[: trace.length]) for trace, scores in zip(traces, attributions, strict=True)]
    asked: list[Target] = []
    sizes = []
    for trace, scores, order in zip(traces, attributions, orders, strict=True):
        deleted = deletions(trace, order, policy.pad_id)
        inserted = deletions(trace, order[::-1], policy.pad_id)[::-1]
        erased = [part for keep in (False, True) for part in erasures(trace.scored, trace.end, scores, keep)]
        asked += [*deleted, *inserted, *erased]
        sizes.append(len(order) + 1)
    logprobs = ask(policy, asked).logprobs.numpy()
    values: dict[str, list[float]] = {name: [] for name in MEASURES}
    start = 0
    for trace, scores, order, size in zip(traces, attributions, orders, sizes, strict=True):
        part = logprobs[start : start + 2 * size + 2 * len(PERCENTS)]
        start += len(part)
        left = curves.density(scores[: trace.length], order)
        deleting = curves.deletion(part[:size], left)
        inserting = curves.insertion(part[size : 2 * size], left)
        drops = (np.exp(part[0]) - np.exp(part[2 * size :])).reshape(2, -1).mean(axis=1)
        numbers = (deleting.rise, deleting.mas, inserting.rise, inserting.mas, drops[0], drops[1])
        for name, number in zip(MEASURES, numbers, strict=True):
            values[name].append(float(number))
    return values


def deletions(trace: Trace, order: Sequence[Sequence[int]], pad_id: int) -> list[Target]:
    """Return S + 1 questions: the whole reasoning, and after each of S steps with pad tokens for those taken away."""
    ids, questions = list(trace.scored.cot_ids), [trace.scored]
    for part in order:
        for place in part:
            ids[place] = pad_id
        questions.append(replace(trace.scored, cot_ids=tuple(ids)))
    return questions


def unneeded(policy: Policy, traces: Sequence[Trace]) -> int:
    """Return how many answers are at least as likely without the reasoning: there no curve falls, whoever ranks."""
    whole = [[list(range(trace.length))] for trace in traces]
    asked = [q for trace, order in zip(traces, whole, strict=True) for q in deletions(trace, order, policy.pad_id)]
    logprobs = ask(policy, asked).logprobs.view(-1, 2)
    return int((logprobs[:, 0] <= logprobs[:, 1]).sum())
