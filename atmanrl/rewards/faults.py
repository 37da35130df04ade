"""What a reward gives, checked: where it fails or gives no reward, an error names it, the problem and the completion."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards.base import Reward, RewardOutput
from atmanrl.rollouts.batch import Rollout, RolloutBatch

SHOWN = 200
"""Characters of a completion in an error message."""


class RewardError(UserError):
    """A reward failed, or gave something that is no reward; the message names it."""


class TimeLimitError(BaseException):
    """The time limit ran out. No `Exception`, so that a reward's own `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupt what runs within the context when its time is over, by an alarm signal.

    Python code is interrupted wherever it stands, and so are sleeping and regular expressions; a compiled extension
    that never returns to Python is not. There is no limit off the main thread and on systems without alarms (Windows).
    A `FunctionReward` runs in a process of its own and has none of these gaps.

    Raises:
        TimeLimitError: the time is over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeLimitError

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again every second, should the first be swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def checked(name: str, reward: Reward, batch: RolloutBatch, policy: Policy) -> RewardOutput:
    """Call a reward and return its output in one form: values on the CPU in float32, values of tokens as lists.

    Raises:
        RewardError: it raised, took too long, or gave something that is no reward.
    """
    returned = guarded(name, reward, batch, policy)
    output = returned if isinstance(returned, RewardOutput) else RewardOutput(returned)
    if not isinstance(output.values, Tensor):
        raise RewardError(
            f"reward {name!r} gave {type(output.values).__name__} (wanted: a tensor [B], or a RewardOutput with one)."
        )
    values = output.values.detach().to("cpu", torch.float32)
    if values.shape != (len(batch),):
        raise RewardError(f"reward {name!r} gave shape {list(values.shape)} for {len(batch)} rollouts.")
    if values.isinf().any():
        rollout = batch.rollouts[int(values.isinf().nonzero()[0, 0])]
        raise RewardError(f"reward {name!r} gave an infinite value {described(rollout)}")
    return RewardOutput(values, output.metrics, _token_values(name, output, batch), _factors(name, output, batch))


def _factors(name: str, output: RewardOutput, batch: RolloutBatch) -> Tensor | None:
    if output.factors is None:
        return None
    factors = output.factors.detach().to("cpu", torch.float32)
    if factors.shape != (len(batch),) or not factors.isfinite().all() or (factors < 0).any():
        raise RewardError(
            f"reward {name!r} gave factors {factors.tolist()} for {len(batch)} rollouts "
            "(wanted: a number from 0 for each)."
        )
    return factors


def _token_values(name: str, output: RewardOutput, batch: RolloutBatch) -> list[list[float] | None] | None:
    """A reward's values for single tokens as lists, one for each rollout; None where there are none."""
    if output.token_values is None:
        return None
    if len(output.token_values) != len(batch):
        raise RewardError(
            f"reward {name!r} gave token_values of {len(output.token_values)} rollouts for {len(batch)} rollouts."
        )
    lists: list[list[float] | None] = []
    for rollout, tokens in zip(batch.rollouts, output.token_values, strict=True):
        if isinstance(tokens, Tensor):
            tokens = tokens.detach().tolist()
        if tokens is not None and len(tokens) > len(rollout.completion.ids):
            raise RewardError(
                f"reward {name!r} gave {len(tokens)} token_values for {len(rollout.completion.ids)} tokens "
                f"{described(rollout)}"
            )
        lists.append(None if tokens is None else [float(value) for value in tokens])
    return lists


def guarded(name: str, reward: Reward, batch: RolloutBatch, policy: Policy) -> Tensor | RewardOutput:
    """Call a reward within its time limit.

    A reward of text alone is then called again with one rollout after the other, to find the one at fault. A reward that
    runs the policy keeps its exception, as what fails there (memory, say) is of the whole batch.

    Raises:
        RewardError: it raised or took too long.
    """
    try:
        return _limited(reward, batch, policy)
    except UserError as error:
        if not isinstance(error, RewardError):  # a wrong option: its message needs nothing more
            raise
        fault: Exception = error
    except Exception as error:
        if reward.uses_policy:
            error.add_note(f"This came up in the reward {name!r}.")
            raise
        fault = error
    for row, rollout in enumerate(batch.rollouts if not reward.uses_policy else ()):
        try:
            _limited(reward, batch.part([row]), policy)
        except Exception as error:
            raise RewardError(f"reward {name!r} {_said(error)} {described(rollout)}") from error
    raise RewardError(
        f"reward {name!r} {_said(fault)} on {len(batch)} rollouts together, and nothing of the kind on any of them alone."
    ) from fault


def _limited(reward: Reward, batch: RolloutBatch, policy: Policy) -> Tensor | RewardOutput:
    try:
        with time_limit(reward.timeout_s):
            return reward(batch, policy)
    except TimeLimitError:
        raise RewardError(f"took longer than timeout_s={reward.timeout_s:g} and was stopped") from None


def _said(error: Exception) -> str:
    """The fault in words: a verb first."""
    if isinstance(error, RewardError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"


def described(rollout: Rollout) -> str:
    """Say in one line which rollout it was."""
    text = rollout.parts.text
    shown = repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
    return f"on problem {rollout.problem.id}, sample {rollout.sample}, whose completion is {shown}."
