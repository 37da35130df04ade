"""The layout of ragged values: many masks of different sizes, one after the other in one vector, without padding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Ragged:
    """Where each of K masks has its values in one vector `[P]`.

    Args:
        counts: `[K]` number of values of each mask.

    Attributes:
        counts: `[K]`, as passed in.
        ends: `[K]` the position behind each mask's last value.
        total: P.

    Example:
        In the layout of `Ragged(torch.tensor([2, 0, 3]))`, the values of the third mask are `values[2:5]`.
    """

    def __init__(self, counts: Tensor) -> None:
        self.counts, self.ends = counts, counts.cumsum(0)
        self.total = int(counts.sum())

    def take(self, indices: Tensor) -> Ragged:
        """Return the layout of the masks `indices` alone, in that order."""
        return Ragged(self.counts[indices])

    def positions(self, indices: Tensor) -> Tensor:
        """Return the positions of the values of `indices`: `values[positions(indices)]` has the layout `take(indices)`."""
        part = self.take(indices)
        shift = self.ends[indices] - part.ends
        return torch.arange(part.total, device=indices.device) + part.spread(shift)

    def spread(self, numbers: Tensor) -> Tensor:
        """Repeat one number of each mask `[..., K]` for each of its values `[..., P]`."""
        if numbers.device.type == "cpu" and not numbers.requires_grad:
            # five times as fast as repeat_interleave, which looks up every value
            return torch.from_numpy(np.repeat(numbers.numpy(), self.counts.numpy(), axis=-1))
        return numbers.repeat_interleave(self.counts, dim=-1, output_size=self.total)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum of each mask's values, `[K]` from `[P]`."""
        return torch.segment_reduce(values, "sum", lengths=self.counts)

    def means(self, values: Tensor) -> Tensor:
        """Return the mean of each mask's values, `[K]` from `[P]`."""
        return self.sums(values) / self.counts
