"""What is probed: a rollout's prompt, its reasoning as sampled, the delimiter and the *gold* answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atmanrl.models.policy import Policy
from atmanrl.probe.attention import ProbeError
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.offsets import decode
from atmanrl.rollouts.split import Parts


@dataclass(frozen=True)
class Target:
    """Token ids of one rollout to be probed.

    Attributes:
        prompt: P tokens.
        tail: reasoning, delimiter and answer (the gold one, unless another was asked for): T + D + N tokens.
        cot: T.
        answer: N, the last tokens of the tail.
    """

    prompt: tuple[int, ...]
    tail: tuple[int, ...]
    cot: int
    answer: int

    @property
    def rows(self) -> int:
        """R = T + D + N, the rows of the mask."""
        return len(self.tail)

    @property
    def context_ids(self) -> tuple[int, ...]:
        """The T + D tokens between prompt and answer."""
        return self.tail[: self.rows - self.answer]

    @property
    def delimiter_ids(self) -> tuple[int, ...]:
        """The D tokens between reasoning and answer."""
        return self.tail[self.cot : self.rows - self.answer]

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The N tokens of the answer."""
        return self.tail[self.rows - self.answer :]


def target(rollout: Rollout, tokenizer: Any, eos_id: int | None = None, answer: str | None = None) -> Target:
    r"""The target of a rollout that has a delimiter.

    The delimiter (of a box, `\boxed{`) stands as the policy wrote it; where its last token also holds what followed, it is
    written anew. White space between delimiter and answer belongs to the delimiter, where the tokenizer lets it stand alone.
    What closes an answer (a box's brace) is no part of it, and stands in the target only before `eos_id`.

    Args:
        rollout: with a delimiter; its reasoning may be empty.
        tokenizer: of the policy.
        eos_id: append this token to the answer (it is not in Eq. 2).
        answer: the answer's text, such as the policy's own; None takes the gold one.

    Raises:
        ProbeError: the answer has no token.
    """
    parts, splitter = rollout.parts, rollout.parts.splitter
    visible = splitter.visible(tokenizer)
    cot = rollout.cot_ids
    rest = rollout.completion.ids[len(cot) :]
    end = next((k for k in range(1, len(rest) + 1) if parts.opening in decode(tokenizer, rest[:k], visible)), 0)
    delimiter = rest[:end]
    if decode(tokenizer, [*cot, *delimiter], visible) != parts.cot + parts.opening:
        delimiter = splitter.text_ids(tokenizer, parts.straddle + parts.opening)
    kind, text = ("gold ", rollout.problem.gold) if answer is None else ("", answer)
    ids = _after_opening(tokenizer, parts, text.strip())
    while len(ids) > 1 and not decode(tokenizer, ids[:1]).strip():
        delimiter, ids = [*delimiter, ids[0]], ids[1:]
    if not ids or not text.strip():
        raise ProbeError(f"{rollout.problem.id}: the {kind}answer {text!r} has no token.")
    if eos_id is not None:
        closing = splitter.text_ids(tokenizer, splitter.closing) if splitter.closing else []
        ids = [*ids, *closing, eos_id]
    return Target(tuple(rollout.prompt_ids), (*cot, *delimiter, *ids), len(cot), len(ids))


def policy_target(rollout: Rollout, policy: Policy, include_eos: bool = False, answer: str | None = None) -> Target:
    """The target of a rollout that has a delimiter, for a policy that is to read it (see `target`).

    Raises:
        ProbeError: the answer has no token, or the target exceeds the policy's context.
    """
    aim = target(rollout, policy.tokenizer, policy.eos_ids[0] if include_eos else None, answer)
    if excess := policy.excess(len(aim.prompt) + aim.rows):
        raise ProbeError(f"{rollout.problem.id}: {excess}.")
    return aim


def _after_opening(tokenizer: Any, parts: Parts, answer: str) -> list[int]:
    """Tokens of the gap and the answer as they are in context: some tokenizers put a space before any text's start."""
    splitter = parts.splitter
    before = splitter.text_ids(tokenizer, parts.opening)
    whole = splitter.text_ids(tokenizer, f"{parts.opening}{splitter.gap}{answer}")
    if whole[: len(before)] == before:
        return whole[len(before) :]
    return splitter.text_ids(tokenizer, f"{splitter.gap}{answer}")
