"""An update on several processes: the same rollouts, minibatches and sums as on one.

Each process samples and scores whole groups of its own. Then all rollouts, rewards and old log-probabilities are
exchanged (token ids and a few numbers, no tensors of the model; see `grpo.experience`), and every process knows the whole
update: advantages, minibatches, counts and metrics need no further exchange. The rollouts of each optimizer step are
partitioned anew, so that every process has like work whoever sampled them.

What remains is rounding, since rollouts stand in other batches: 1e-7 of a value in float32. A solver with a step size of its
own, as `AdaptiveSolver`, may turn that into another number of gradients, and rewards then differ within its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping


def weighted_means(parts: Iterable[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Return means of metrics by weight.

    Args:
        parts: metrics by name, and their weight. Where one is undefined (NaN) or missing, that part has no say.

    Returns:
        The means by name; NaN where no part has a say.
    """
    sums: dict[str, tuple[float, float]] = {}
    for metrics, weight in parts:
        for name, value in metrics.items():
            total, weights = sums.get(name, (0.0, 0.0))
            known = not math.isnan(value)
            sums[name] = (total + weight * value, weights + weight) if known else (total, weights)
    return {name: total / weights if weights else math.nan for name, (total, weights) in sums.items()}
