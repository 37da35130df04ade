"""An update on several processes: the same rollouts, minibatches and sums as on one.

Each process samples and scores whole groups of its own. Then all rollouts, rewards and old log-probabilities are
exchanged (token ids and a few numbers, no tensors of the model), and every process knows the whole update: advantages,
minibatches, counts and figures need no further exchange. Each optimizer step is dealt out anew, so that every process has
like work whoever sampled it, and in equally many parts: sharded weights are gathered layer by layer in each forward and
backward pass, which all processes must do together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from atmanrl.distributed import Processes, everyone, processes
from atmanrl.forward import length_batches
from atmanrl.rewards import Scores
from atmanrl.rollouts.batch import RolloutBatch


def exchange(batch: RolloutBatch, scores: Scores, old: list[Tensor]) -> tuple[Scores, list[Tensor]]:
    """Bring all processes' rollouts into `batch`, in order of rank; returns the scores and `old` of them all.

    Figures of the rewards are averaged over the processes that have them.
    """
    parts = everyone((batch.rollouts, scores, old, batch.seconds))
    if len(parts) == 1:
        return scores, old
    before = sum(len(rollouts) for rollouts, *_ in parts[: processes().rank])
    batch.own = slice(before, before + len(batch))
    batch.rollouts = [rollout for rollouts, *_ in parts for rollout in rollouts]
    batch.seconds = max(seconds for *_, seconds in parts)
    values = {name: torch.cat([theirs.values[name] for _, theirs, *_ in parts]) for name in scores.values}
    figures = weighted_means([(theirs.figures, 1) for _, theirs, *_ in parts])
    total = torch.cat([theirs.total for _, theirs, *_ in parts])
    return Scores(values, total, figures), [one for *_, theirs, _ in parts for one in theirs]


def weighted_means(parts: Iterable[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Means of figures by weight; where one is undefined (NaN) or missing, that part has no say. NaN where none has."""
    sums: dict[str, tuple[float, float]] = {}
    for figures, weight in parts:
        for name, value in figures.items():
            total, weights = sums.get(name, (0.0, 0.0))
            known = not math.isnan(value)
            sums[name] = (total + weight * value, weights + weight) if known else (total, weights)
    return {name: total / weights if weights else math.nan for name, (total, weights) in sums.items()}


def deal(rows: Sequence[int], lengths: Sequence[int], budget: int, among: Processes) -> list[list[int]]:
    """This process's parts of a minibatch; every process has equally many, the last of some are empty.

    Args:
        rows: of the minibatch's rollouts.
        lengths: of each of them, in tokens.
        budget: most tokens of a part, padding counted.
        among: the processes.
    """
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    shares = [order[rank :: among.count] for rank in range(among.count)]  # each has its part of long and of short ones
    parts = [
        [[share[k] for k in part] for part in length_batches([lengths[i] for i in share], budget)] for share in shares
    ]
    mine = [[rows[i] for i in part] for part in parts[among.rank]]
    return mine + [[] for _ in range(max(map(len, parts)) - len(mine))]
