"""A chain of thought that the model writes itself, from a question alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy, PolicyError
from atmanrl.notes import say
from atmanrl.rollouts import marking
from atmanrl.rollouts.offsets import decode, special_ids
from atmanrl.rollouts.sampling import sample
from atmanrl.rollouts.split import DEFAULT, Parts, Splitter
from atmanrl.rollouts.truncation import Truncation

SHOWN = 80
"""Characters of a completion's end that an error shows."""


@dataclass(frozen=True)
class Written:
    """A completion of the model's.

    Attributes:
        ids: its tokens, without special ones at the end.
        text: what they say.
        finished: whether it ended by itself.
        splitter: what tells its reasoning from its answer.
        parts: reasoning and answer; the answer is None where nothing marks it.

    Example:
        `Written(ids=[17, 12, 9, 21], text="3 + 4 = 7. ##### 7", finished=True, splitter=DEFAULT, parts=Parts(...))`
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    splitter: Splitter
    parts: Parts


def write(policy: Policy, prompt_ids: Sequence[int], limit: int, splitter: Splitter | None) -> Written:
    """Let a policy answer a prompt, always by its likeliest token.

    Args:
        policy: built.
        prompt_ids: tokens of the prompt.
        limit: most tokens that it may write; fewer where its context is shorter.
        splitter: tells its reasoning from its answer; None recognises it.

    Raises:
        UserError: it wrote an answer without a reasoning, or nothing.
        PolicyError: the prompt fills the context.
    """
    room = min(limit, policy.context_length - len(prompt_ids))
    if room < 1:
        raise PolicyError(f"{policy.excess(len(prompt_ids) + 1)}: the prompt leaves no room for a reasoning.")
    draws = torch.zeros(1, 1, room, dtype=torch.float64)  # of one token alone each draw is the same
    ((completion,),) = sample(policy, [prompt_ids], draws, truncation=Truncation(top_k=1))
    ids, special = list(completion.ids), special_ids(policy.tokenizer)
    while ids and ids[-1] in special:
        ids.pop()
    if splitter is None:
        shown = marking.shown_marks(policy.tokenizer)
        mark = marking.recognise([decode(policy.tokenizer, ids, shown)])
        splitter = DEFAULT if mark is None else mark.splitter
    parts = splitter.split(policy.tokenizer, ids)
    if not parts.text.strip():
        raise UserError("the model wrote nothing: ask it for a reasoning in the prompt, or give one as cot.")
    if parts.answer is not None and not parts.has_reasoning:
        raise UserError(f"the model answered {parts.answer!r} without a reasoning: ask for one in the prompt.")
    return Written(tuple(ids), parts.text, completion.finished, splitter, parts)


def scored_answer(written: Written, gold: str | None) -> str:
    """Return the answer whose loss is probed: the gold one, or else the model's own.

    Raises:
        UserError: there is neither.
    """
    if gold is not None or (written.parts.answer or "").strip():
        return gold if gold is not None else str(written.parts.answer)
    cut_off = "" if written.finished else f" (it was cut off after {len(written.ids)} tokens: give more max_new_tokens)"
    raise UserError(
        f"nothing known marks an answer in what the model wrote, which ends in {written.text[-SHOWN:]!r}{cut_off}; give the "
        "gold answer, the delimiter before its answer, or a prompt that asks for one."
    )


def say_unmarked(written: Written) -> None:
    """Say that a completion without a marked answer is taken for a reasoning as a whole."""
    cut_off = "" if written.finished else f", and was cut off after {len(written.ids)} tokens"
    say(
        f"nothing known marks an answer in what the model wrote{cut_off}: all of it is taken for its reasoning, and the "
        f"gold answer is put behind {written.splitter.opening}."
    )
