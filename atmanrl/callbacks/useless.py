"""`UselessUpdates`: what keeps a run from learning is said at the first update that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from atmanrl.grpo.experience import experience_of
from atmanrl.notes import say
from atmanrl.rollouts import Rollout, RolloutBatch

CUT_OFF = (
    "all {count} completions were cut off at data.max_new_tokens={limit}, so none has an answer: raise data.max_new_tokens, "
    "or ask for shorter reasoning in the task's instruction (data.task.instruction)."
)
NO_ANSWER = (
    "none of {count} completions has an answer, since none holds {opening!r}: have the task's instruction ask for it "
    "(data.task.instruction), or name what this model writes before its answers (data.delimiter)."
)
NO_SPREAD = (
    "in none of the {groups} groups do rewards differ ({right} of {count} completions are right): nothing can be learned "
    "from this update. {advice}"
)
ALL_RIGHT = "Take harder problems, or add a reward that still tells right answers apart."
ALL_WRONG = "Take easier problems, a policy that solves some, or more completions of each (data.group_size)."
NO_GRADIENT = (
    "the update's gradient is 0, though rewards differ: the policy has not changed. See model.rewards' weights, model.loss, "
    "and whether anything of the policy is trainable."
)


class UselessUpdates(Callback):
    """Says at once, and once for each kind, that an update teaches nothing, and what to change.

    Four kinds: every completion cut off, no answer in any, no group whose rewards differ, a gradient of 0. Of evaluations
    the first two are said, of a whole batch.
    """

    def __init__(self) -> None:
        self.said: set[str] = set()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the update's rollouts, rewards and gradient."""
        experience = experience_of(outputs)
        if experience is None:
            return
        rollouts = experience.rollouts
        self._look(rollouts)
        metrics = trainer.callback_metrics
        flat = metrics.get("frac_reward_zero_std")
        if flat is not None and float(flat) == 1:
            right = sum(bool(rollout.correct) for rollout in rollouts)
            groups, advice = len(rollouts) // experience.batch.group_size, ALL_RIGHT if right else ALL_WRONG
            self._say(NO_SPREAD, groups=groups, count=len(rollouts), right=right, advice=advice)
        elif "grad_norm" in metrics and float(metrics["grad_norm"]) == 0:
            self._say(NO_GRADIENT)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Look at a batch's rollouts."""
        if isinstance(batch, RolloutBatch):
            self._look(batch.rollouts)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def _look(self, rollouts: Sequence[Rollout]) -> None:
        """Look whether any completion has an end and an answer."""
        sampled = [rollout for rollout in rollouts if rollout.completion.ids]
        if not sampled:
            return
        if not any(rollout.completion.finished for rollout in sampled):
            limit = max(len(rollout.completion.ids) for rollout in sampled)
            self._say(CUT_OFF, count=len(sampled), limit=limit)
        elif all(rollout.parts.answer is None for rollout in sampled):
            self._say(NO_ANSWER, count=len(sampled), opening=sampled[0].parts.opening)

    def _say(self, kind: str, **values: object) -> None:
        if kind not in self.said:
            self.said.add(kind)
            say(kind.format(**values))
