"""Reward functions as TRL's trainers take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward, RewardOutput
from atmanrl.rewards.faults import RewardError
from atmanrl.rewards.gate import Gate
from atmanrl.rollouts.batch import Rollout, RolloutBatch
from atmanrl.worker import CallResult, FunctionError, FunctionTimeoutError, LoadError, Worker, call, load

FIELDS: dict[str, Callable[[Rollout], Any]] = {
    "problem_id": lambda rollout: rollout.problem.id,
    "question": lambda rollout: rollout.problem.question,
    "gold": lambda rollout: rollout.problem.gold,
    "answer": lambda rollout: rollout.problem.gold,
    "solution": lambda rollout: rollout.problem.solution,
}
"""The columns that every function gets, one value for each rollout; `answer` is the gold one, as in data sets."""


class FunctionReward(Reward):
    """Runs a reward function written for TRL's `GRPOTrainer`, unchanged.

    The function is `f(prompts, completions, completion_ids, **columns) -> list[float | None]`, plain or async; None
    abstains. Its columns are those of `FIELDS` and those that the task keeps in `Problem.columns` (None for a problem that
    has no such column), besides `trainer_state` (with `global_step` and `max_steps`),
    `log_metric(name, value)` (logged as it is) and `log_extra(column, values)` (shown in the table of rollouts). Prompts
    and completions are lists of messages where the policy has a chat template, and texts where it has none.

    It runs in a process of its own, which is killed when a call takes too long, whatever it is doing; so its module must
    be importable there, what it loads and remembers stays there, and it cannot start processes with `multiprocessing`.

    Args:
        function: its dotted path, `my_module.my_reward`.
        weight: factor in the total reward.
        arguments: where there are any, what stands at that path is called with them and returns the reward function:
            `trl.rewards.get_soft_overlong_punishment` with `max_completion_len` and `soft_punish_cache`.
        columns: further columns, each with the name of the column of `FIELDS` that it repeats: `{solution: gold}`
            gives the gold answer to a function that looks for it in `solution`.
        conversational: whether prompts and completions are messages; None lets the policy's chat template decide.
        only_where: counts only in rollouts where another reward is high enough.
        timeout_s: seconds that one call may take; None runs the function in this process, without a limit.

    Raises:
        UserError: no dotted path, an unknown column, or a time limit that is no time.
    """

    def __init__(
        self,
        function: str,
        weight: float = 1.0,
        arguments: dict[str, Any] | None = None,
        columns: dict[str, str] | None = None,
        conversational: bool | None = None,
        only_where: Gate | None = None,
        timeout_s: float | None = 60.0,
    ) -> None:
        super().__init__(weight, only_where)  # without its alarm: functions may use alarms of their own
        if "." not in function.strip("."):
            raise UserError(f"FunctionReward: {function!r} is no dotted path; give my_module.my_reward.")
        if timeout_s is not None and timeout_s <= 0:
            raise UserError(f"FunctionReward: timeout_s is {timeout_s}; give seconds above 0, or null.")
        for column, source in (columns or {}).items():
            if source not in FIELDS:
                raise UserError(f"FunctionReward: columns.{column} is {source!r}; choose one of {', '.join(FIELDS)}.")
        self.path, self.arguments = function, arguments
        self.columns = columns or {}
        self.conversational = conversational
        self.limit = timeout_s
        self.worker = Worker(function, arguments)
        self.function: Callable[..., Any] | None = None

    def __call__(self, batch: RolloutBatch, policy: Policy) -> RewardOutput:
        """Call the function and return its rewards, `[B]` with NaN where it abstains, and what it has logged.

        Raises:
            RewardError: it raised, took too long, or gave no list of B numbers.
            UserError: there is no such function.
        """
        result = self._result(self._inputs(batch, policy))
        values = _numbers(result.value, len(batch))
        for column, notes in result.extras.items():
            if len(notes) != len(batch):
                raise RewardError(f"gave {len(notes)} values to log_extra for {column!r}, not one for each rollout")
            for rollout, note in zip(batch.rollouts, notes, strict=True):
                rollout.notes[column] = note
        return RewardOutput(values, {name: sum(logged) / len(logged) for name, logged in result.metrics.items()})

    def _inputs(self, batch: RolloutBatch, policy: Policy) -> dict[str, Any]:
        rollouts = batch.rollouts
        chat = policy.tokenizer.chat_template is not None if self.conversational is None else self.conversational
        columns = {name: [field(r) for r in rollouts] for name, field in FIELDS.items()}
        for name in dict.fromkeys(name for r in rollouts for name in r.problem.columns):
            columns[name] = [r.problem.columns.get(name) for r in rollouts]
        return {
            **columns,
            **{name: [FIELDS[source](r) for r in rollouts] for name, source in self.columns.items()},
            "prompts": [_turn("user", r.prompt) if chat else r.prompt for r in rollouts],
            "completions": [_turn("assistant", r.parts.text) if chat else r.parts.text for r in rollouts],
            "completion_ids": [r.completion.ids for r in rollouts],
            "trainer_state": SimpleNamespace(global_step=batch.update, max_steps=batch.updates),
        }

    def _result(self, inputs: Mapping[str, Any]) -> CallResult:
        try:
            if self.limit is not None:
                return self.worker(inputs, self.limit)
            self.function = self.function or load(self.path, self.arguments)
            return call(self.function, inputs)
        except LoadError as error:
            raise UserError(f"FunctionReward: {self.path!r} cannot be loaded: {error}.") from error
        except FunctionTimeoutError:
            raise RewardError(f"took longer than timeout_s={self.limit:g} in {self.path} and was stopped") from None
        except FunctionError as error:
            raise RewardError(f"raised in {self.path}: {error}") from error


def _turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def _numbers(returned: Any, size: int) -> Tensor:
    """A list of B numbers or None as `[B]` with NaN."""
    if not isinstance(returned, (list, tuple)) or len(returned) != size:
        what = f"{len(returned)} values" if isinstance(returned, (list, tuple)) else type(returned).__name__
        raise RewardError(f"returned {what} for {size} rollouts (wanted: a list with one number or None for each)")
    try:
        return torch.tensor([float("nan") if value is None else float(value) for value in returned])
    except (TypeError, ValueError) as error:
        raise RewardError(f"returned something that is no number: {error}") from error
