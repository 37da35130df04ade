"""An update on several processes: the same rollouts, minibatches and sums as on one.

Each process samples and scores whole groups of its own. Then all rollouts, rewards and old log-probabilities are
exchanged (token ids and a few numbers, no tensors of the model), and every process knows the whole update: advantages,
minibatches, counts and figures need no further exchange. Each optimizer step is dealt out anew, so that every process has
like work whoever sampled it.

What remains is rounding, since rollouts stand in other batches: 1e-7 of a value in float32. A solver with a step size of its
own, as `AdaptiveSolver`, may turn that into another number of gradients, and rewards then differ within its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor

from atmanrl.distributed import everyone, processes
from atmanrl.forward import cheapest_batches
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import RolloutBatch


def exchange(
    batch: RolloutBatch, scores: Scores, old: list[Tensor], reference: list[Tensor] | None
) -> tuple[Scores, list[Tensor], list[Tensor] | None]:
    """Bring all processes' rollouts into `batch`, in order of rank.

    Args:
        batch: this process's rollouts; changed in place. Its figures become means over the processes.
        scores: their rewards.
        old: their log-probabilities under the policy that sampled them.
        reference: those under the reference policy, or None on every process.

    Returns:
        Scores and log-probabilities of all rollouts. Figures of the rewards are means over the processes that have them.
    """
    parts = everyone((batch.rollouts, scores, old, reference or [], batch.seconds, batch.figures))
    if len(parts) == 1:
        return scores, old, reference
    rollouts, given, olds, references, seconds, figures = (list(part) for part in zip(*parts, strict=True))
    before = sum(map(len, rollouts[: processes().rank]))
    batch.own = slice(before, before + len(batch))
    batch.rollouts = list(chain.from_iterable(rollouts))
    batch.seconds, batch.figures = max(seconds), weighted_means((theirs, 1) for theirs in figures)
    every = Scores(
        {name: torch.cat([theirs.values[name] for theirs in given]) for name in scores.values},
        torch.cat([theirs.total for theirs in given]),
        weighted_means((theirs.figures, 1) for theirs in given),
    )
    known = None if reference is None else list(chain.from_iterable(references))
    return every, list(chain.from_iterable(olds)), known


def weighted_means(parts: Iterable[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Means of figures by weight; where one is undefined (NaN) or missing, that part has no say. NaN where none has."""
    sums: dict[str, tuple[float, float]] = {}
    for figures, weight in parts:
        for name, value in figures.items():
            total, weights = sums.get(name, (0.0, 0.0))
            known = not math.isnan(value)
            sums[name] = (total + weight * value, weights + weight) if known else (total, weights)
    return {name: total / weights if weights else math.nan for name, (total, weights) in sums.items()}


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices for each of `count` processes, each with its part of the long and of the short ones."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [sorted(order[rank::count]) for rank in range(count)]


def deal(lengths: Sequence[int], budget: int, count: int) -> list[list[list[int]]]:
    """Each process's share in parts; every process has equally many, the last of some are empty.

    Args:
        lengths: of the sequences, in tokens.
        budget: most tokens of a part, padding counted.
        count: of the processes.
    """
    dealt = [
        [[share[k] for k in part] for part in cheapest_batches([lengths[i] for i in share], budget)]
        for share in shares(lengths, count)
    ]
    most = max(map(len, dealt))
    return [[*parts, *([] for _ in range(most - len(parts)))] for parts in dealt]
