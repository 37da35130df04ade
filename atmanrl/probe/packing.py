"""Values of many rollouts in one vector, rollout after rollout: no padding is stored, and none is computed with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Packing:
    """Where each rollout's values stand in a packed vector `[P]`.

    Args:
        counts: `[K]` how many values each rollout has.

    Attributes:
        counts: as given.
        ends: `[K]` where each rollout's values end.
        total: P.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts, self.ends = counts, counts.cumsum(0)
        self.total = int(counts.sum())

    def take(self, rows: Tensor) -> Packing:
        """The packing of some rollouts alone, in the order of `rows`."""
        return Packing(self.counts[rows])

    def index(self, rows: Tensor) -> Tensor:
        """Positions of the values of `rows`, in their order: `values[packing.index(rows)]` is packed by `take(rows)`."""
        part = self.take(rows)
        shift = self.ends[rows] - part.ends
        return torch.arange(part.total, device=rows.device) + part.spread(shift)

    def spread(self, numbers: Tensor) -> Tensor:
        """One number of each rollout `[..., K]` at each of its values `[..., P]`."""
        if numbers.device.type == "cpu" and not numbers.requires_grad:
            # five times as fast as repeat_interleave, which looks every value up
            return torch.from_numpy(np.repeat(numbers.numpy(), self.counts.numpy(), axis=-1))
        return numbers.repeat_interleave(self.counts, dim=-1, output_size=self.total)

    def sums(self, values: Tensor) -> Tensor:
        """The sum `[K]` of each rollout's values `[P]`."""
        return torch.segment_reduce(values, "sum", lengths=self.counts)

    def means(self, values: Tensor) -> Tensor:
        """The mean `[K]` of each rollout's values `[P]`."""
        return self.sums(values) / self.counts
