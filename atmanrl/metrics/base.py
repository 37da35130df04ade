"""`RolloutMetric`: the plug point for what is measured of rollouts, in training and in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from torch import Tensor
from torchmetrics import Metric

from atmanrl.errors import UserError
from atmanrl.metrics.columns import Column
from atmanrl.metrics.conditions import Condition
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.tasks import Task

if TYPE_CHECKING:
    from atmanrl.models.policy import Policy

Stage = Literal["training", "validation", "test"]
"""When a metric runs: on the rollouts of an update, on held-out training problems, on test problems."""


class RolloutMetric(Metric, ABC):
    """A metric of rollouts. Named in a config, it shows in logs, `eval/*.json`, Table 1 and the page of a report.

    It is a torchmetrics metric: counts live in states (`add_state`), which are summed over batches and, by their
    `dist_reduce_fx`, over processes. `RatioMetric` does that for means and ratios; `docs/extending_metrics.md` shows one.

    Args:
        stages: when it runs; None takes `default_stages`.

    Attributes:
        columns: how Table 1 shows the values of `compute`, by key; values without a column are logged and written only.
        conditions: how reports speak of what `setting` returns, by key.
        latest: what the last `update` added, as `RatioMetric.contributions` returns it; empty where nobody knows.
        default_stages: when it runs unless `stages` says otherwise.
        uses_policy: whether `update` gets the policy, to run forward passes of its own.
        training_prefix: what stands before its names in the log of training; in evaluation it is `val/` and `test/`.

    Raises:
        UserError: there is no such stage.
    """

    full_state_update = False
    is_differentiable = False
    columns: Mapping[str, Column] = {}
    conditions: Mapping[str, Condition] = {}
    latest: Mapping[str, Tensor | tuple[Tensor, Tensor]] = {}
    default_stages: ClassVar[tuple[Stage, ...]] = ("validation", "test")
    uses_policy: ClassVar[bool] = False
    training_prefix: ClassVar[str] = "train/"

    def __init__(self, stages: Sequence[Stage] | None = None) -> None:
        super().__init__()
        self.stages: tuple[Stage, ...] = self.default_stages if stages is None else tuple(stages)
        if wrong := [stage for stage in self.stages if stage not in get_args(Stage)]:
            raise UserError(
                f"{type(self).__name__}.stages has {wrong[0]!r}; give some of {', '.join(get_args(Stage))}."
            )

    def prepare(self, task: Task | None, samples: int) -> None:  # noqa: B027 (most metrics need nothing)
        """Adapt to what the run decides, before the first update of a stage.

        Args:
            task: where the problems come from; None for stored traces.
            samples: rollouts of each problem in this stage.
        """

    def setting(self) -> dict[str, object]:
        """Return what the values depend on, for the `setting` of `eval/*.json`: the name of a tagger, say."""
        return {}

    @abstractmethod
    def update(self, batch: RolloutBatch, policy: Policy | None = None) -> None:
        """Count rollouts of this process, in whole groups (`batch.groups`).

        Args:
            batch: judged rollouts, not to be changed.
            policy: the model where `uses_policy`, else None. No gradients are recorded.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values over all rollouts counted, scalars by key; NaN where one is not defined."""
