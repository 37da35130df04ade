"""What is probed: a rollout's prompt, its reasoning as sampled, the delimiter and the *gold* answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atmanrl.probe.attention import ProbeError
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.offsets import decode
from atmanrl.rollouts.split import Parts


@dataclass(frozen=True)
class Target:
    """Token ids of one rollout to be probed.

    Attributes:
        prompt: P tokens.
        tail: reasoning, delimiter and gold answer: T + D + N tokens.
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


def target(rollout: Rollout, tokenizer: Any, eos_id: int | None = None) -> Target:
    r"""The target of a rollout that can be probed.

    The delimiter (of a box, `\boxed{`) stands as the policy wrote it; where its last token also holds what followed, it is
    written anew. White space between delimiter and answer belongs to the delimiter, where the tokenizer lets it stand alone.
    What closes an answer (a box's brace) is no part of it, and stands in the target only before `eos_id`.

    Args:
        rollout: with `can_be_probed`.
        tokenizer: of the policy.
        eos_id: append this token to the answer (it is not in Eq. 2).

    Raises:
        ProbeError: the gold answer has no token.
    """
    parts, splitter = rollout.parts, rollout.parts.splitter
    visible = splitter.visible(tokenizer)
    cot = rollout.cot_ids
    rest = rollout.completion.ids[len(cot) :]
    end = next((k for k in range(1, len(rest) + 1) if parts.opening in decode(tokenizer, rest[:k], visible)), 0)
    delimiter = rest[:end]
    if decode(tokenizer, [*cot, *delimiter], visible) != parts.cot + parts.opening:
        delimiter = splitter.text_ids(tokenizer, parts.straddle + parts.opening)
    answer = _after_opening(tokenizer, parts, rollout.problem.gold.strip())
    while len(answer) > 1 and not decode(tokenizer, answer[:1]).strip():
        delimiter, answer = [*delimiter, answer[0]], answer[1:]
    if not answer or not rollout.problem.gold.strip():
        raise ProbeError(f"{rollout.problem.id}: the gold answer {rollout.problem.gold!r} has no token.")
    if eos_id is not None:
        closing = splitter.text_ids(tokenizer, splitter.closing) if splitter.closing else []
        answer = [*answer, *closing, eos_id]
    return Target(tuple(rollout.prompt_ids), (*cot, *delimiter, *answer), len(cot), len(answer))


def _after_opening(tokenizer: Any, parts: Parts, gold: str) -> list[int]:
    """Tokens of the gap and the gold answer as they are in context: some tokenizers put a space before any text's start."""
    splitter = parts.splitter
    before = splitter.text_ids(tokenizer, parts.opening)
    whole = splitter.text_ids(tokenizer, f"{parts.opening}{splitter.gap}{gold}")
    if whole[: len(before)] == before:
        return whole[len(before) :]
    return splitter.text_ids(tokenizer, f"{splitter.gap}{gold}")
