"""Which groups of an update a costly reward looks at, where it looks at a share of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.rollouts.seeds import uniforms


@dataclass(frozen=True)
class GroupDraw:
    """A systematic sample of an update's groups: each with probability `share`, and as evenly as whole groups allow.

    With u uniform in [0, 1) for the update, the group at place k is drawn where floor((k + 1) share + u) exceeds
    floor(k share + u), which has probability `share` for each k. Of Q groups floor(Q share) or one more are drawn, and of
    each process's consecutive places as even a part, so that none waits for another. u depends on run seed and update
    alone: the draw is the same on any number of processes and after a restart.

    Attributes:
        share: above 0 and up to 1.

    Example:
        `GroupDraw(0.25)` draws the groups 1 and 5 of eight, say: one of each four that follow each other.
    """

    share: float

    def applies(self, batch: RolloutBatch) -> bool:
        """Whether there is anything to draw: not from all groups, and not outside of training, where none has a place."""
        return self.share < 1 and bool(batch.places)

    def rollouts(self, batch: RolloutBatch) -> list[int]:
        """The rollouts of a batch whose groups are drawn."""
        start = self._start(batch)
        return [i for i, rollout in enumerate(batch.rollouts) if self._is_drawn(batch.places[rollout.row], start)]

    def places(self, batch: RolloutBatch) -> Iterator[int]:
        """The places that are drawn in an update, over all processes, from the first on and without an end."""
        start = self._start(batch)
        return (place for place in count() if self._is_drawn(place, start))

    def _start(self, batch: RolloutBatch) -> float:
        return float(uniforms(batch.seed, "share", batch.update, 0, 0, 1))

    def _is_drawn(self, place: int, start: float) -> bool:
        return math.floor((place + 1) * self.share + start) > math.floor(place * self.share + start)
