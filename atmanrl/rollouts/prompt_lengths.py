"""Problems whose prompts leave no room for a completion: named before anything is trained, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.notes import say
from atmanrl.rollouts.resampling import ProblemRow
from atmanrl.tasks import Task

TooLong = Literal["error", "drop"]


def check_limits(max_prompt_tokens: int | None, too_long: str) -> None:
    """Refuse options that cannot be.

    Raises:
        UserError: a limit below 1, or an unknown `too_long`.
    """
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise UserError(f"data.max_prompt_tokens is {max_prompt_tokens}; give at least 1, or null for no such limit.")
    if too_long not in get_args(TooLong):
        raise UserError(f"data.too_long {too_long!r} is unknown; choose {' or '.join(get_args(TooLong))}.")


def fitting_problems(
    rows: Sequence[ProblemRow],
    task: Task,
    policy: Policy,
    max_new_tokens: int,
    max_prompt_tokens: int | None,
    too_long: TooLong,
) -> list[ProblemRow]:
    """Return the problems whose prompts are short enough, and say how many are left out.

    Args:
        rows: problems.
        task: makes their prompts.
        policy: with its tokenizer; the model itself need not be loaded.
        max_new_tokens: room for the completion within the model's context.
        max_prompt_tokens: most tokens of a prompt besides; None for no such limit.
        too_long: `error`, or `drop` to leave them out.

    Raises:
        UserError: a prompt is too long and `too_long` is `error`; the message names the longest.
    """
    policy.prepare()
    room = policy.context_length - max_new_tokens
    limit = room if max_prompt_tokens is None else min(room, max_prompt_tokens)
    lengths = (
        [len(ids) for ids in policy.encoder.prompts([task.prompt(problem) for _, problem in rows])] if rows else []
    )
    over = [i for i, length in enumerate(lengths) if length > limit]
    if not over:
        return list(rows)
    longest = max(over, key=lengths.__getitem__)
    why = (
        f"data.max_prompt_tokens is {limit}"
        if limit != room
        else f"data.max_new_tokens={max_new_tokens} leave room for {max(0, room)} of the model's {policy.context_length}"
    )
    what = f"the prompt of {rows[longest][1].id} has {lengths[longest]} tokens, and {why}"
    if too_long == "drop":
        say(f"{len(over)} of {len(rows)} problems are left out: {what}.")
        dropped = set(over)
        return [row for i, row in enumerate(rows) if i not in dropped]
    others = f", and so have {len(over) - 1} others no room" if len(over) > 1 else ""
    raise UserError(
        f"{what}{others}: leave such problems out by data.too_long=drop, or "
        f"{'raise data.max_prompt_tokens' if limit != room else 'lower data.max_new_tokens'}."
    )
