"""What is probed, as token ids: a prompt, a reasoning, the delimiter as it was written, and the answer that is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atmanrl.errors import prefixed
from atmanrl.models.policy import Policy, PolicyError
from atmanrl.probe.attention import ProbeError
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.offsets import decode
from atmanrl.rollouts.split import Parts


@dataclass(frozen=True)
class Target:
    """The token ids of one reasoning to be probed.

    Attributes:
        prompt_ids: P tokens, which the mask leaves alone.
        cot_ids: the T tokens of the reasoning, whose saliency is asked for.
        delimiter_ids: the D tokens between reasoning and answer.
        answer_ids: the N tokens of the answer, whose loss is minimized (Eq. 2).

    Example:
        `Target(prompt_ids=(1, 420, 31), cot_ids=(17, 12, 18, 30, 21), delimiter_ids=(9,), answer_ids=(21,))`
    """

    prompt_ids: tuple[int, ...]
    cot_ids: tuple[int, ...]
    delimiter_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + self.rows

    @property
    def tail(self) -> tuple[int, ...]:
        """All tokens after the prompt."""
        return self.context_ids + self.answer_ids

    @property
    def context_ids(self) -> tuple[int, ...]:
        """The T + D tokens between prompt and answer."""
        return self.cot_ids + self.delimiter_ids

    @property
    def rows(self) -> int:
        """The number of rows of the mask, R = T + D + N."""
        return len(self.tail)

    def check(self, policy: Policy) -> None:
        """Refuse what the policy cannot read, or what has no answer.

        Raises:
            PolicyError: there are more tokens than the model's context holds.
            ProbeError: the answer has no token, or the model does not know one of the tokens.
        """
        if excess := policy.excess(len(self)):
            raise PolicyError(f"{excess}.")
        if not self.answer_ids:
            raise ProbeError("the answer has no token.")
        if (largest := max(*self.prompt_ids, *self.tail)) >= policy.vocabulary_size:
            raise ProbeError(
                f"token {largest} is beyond the model's vocabulary of {policy.vocabulary_size}; tokenize with its tokenizer."
            )


def target(rollout: Rollout, tokenizer: Any, eos_id: int | None = None, answer: str | None = None) -> Target:
    """Return the target of a rollout that has a delimiter; see `target_of`.

    Args:
        rollout: its reasoning may be empty.
        tokenizer: of the policy.
        eos_id: as in `target_of`.
        answer: the text of the answer that is scored, such as the policy's own; None takes the gold one.

    Raises:
        ProbeError: the answer has no token; the message names the problem.
    """
    answer = rollout.problem.gold if answer is None else answer
    with prefixed(rollout.problem.id, ProbeError):
        return target_of(tokenizer, rollout.prompt_ids, rollout.completion.ids, rollout.parts, answer, eos_id)


def policy_target(rollout: Rollout, policy: Policy, include_eos: bool = False, answer: str | None = None) -> Target:
    """Return the target of a rollout that has a delimiter, checked for a policy that is to read it; see `target`.

    Raises:
        ProbeError: the answer has no token, or the target exceeds the policy's context; the message names the problem.
    """
    checked = target(rollout, policy.tokenizer, policy.eos_ids[0] if include_eos else None, answer)
    with prefixed(rollout.problem.id, ProbeError):
        checked.check(policy)
    return checked


def target_of(
    tokenizer: Any, prompt_ids: Sequence[int], ids: Sequence[int], parts: Parts, answer: str, eos_id: int | None = None
) -> Target:
    r"""Return the target of a completion that has been split, with `answer` in the place of what was answered.

    The delimiter (of a box, `\boxed{`) stays as it was written, unless its last token also holds what followed: then it is
    tokenized anew. White space between delimiter and answer belongs to the delimiter where the tokenizer gives it a token
    of its own. What closes an answer (a box's brace) does not belong to it, and is in the target only before `eos_id`.

    Args:
        tokenizer: of the policy.
        prompt_ids: tokens of the prompt.
        ids: tokens of the completion.
        parts: the completion split into reasoning, delimiter and answer.
        answer: the text of the answer that is scored.
        eos_id: a token to be appended to the answer; Eq. 2 has none.

    Raises:
        ProbeError: the answer has no token.
    """
    splitter = parts.splitter
    visible = splitter.visible(tokenizer)
    cot, rest = list(ids[: parts.cot_length]), list(ids[parts.cot_length :])
    end = next((k for k in range(1, len(rest) + 1) if parts.opening in decode(tokenizer, rest[:k], visible)), 0)
    delimiter = rest[:end]
    if decode(tokenizer, [*cot, *delimiter], visible) != parts.cot + parts.opening:
        delimiter = splitter.text_ids(tokenizer, parts.straddle + parts.opening)
    answer_ids = _after_opening(tokenizer, parts, answer.strip())
    while len(answer_ids) > 1 and not decode(tokenizer, answer_ids[:1]).strip():
        delimiter, answer_ids = [*delimiter, answer_ids[0]], answer_ids[1:]
    if not answer_ids or not answer.strip():
        raise ProbeError(f"the answer {answer!r} has no token.")
    if eos_id is not None:
        closing = splitter.text_ids(tokenizer, splitter.closing) if splitter.closing else []
        answer_ids = [*answer_ids, *closing, eos_id]
    return Target(tuple(prompt_ids), tuple(cot), tuple(delimiter), tuple(answer_ids))


def _after_opening(tokenizer: Any, parts: Parts, answer: str) -> list[int]:
    """Return the tokens of gap and answer as they are in context: some tokenizers begin every text with a space."""
    splitter = parts.splitter
    opening = splitter.text_ids(tokenizer, parts.opening)
    with_opening = splitter.text_ids(tokenizer, f"{parts.opening}{splitter.gap}{answer}")
    if with_opening[: len(opening)] == opening:
        return with_opening[len(opening) :]
    return splitter.text_ids(tokenizer, f"{splitter.gap}{answer}")
