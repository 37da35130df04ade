"""Asking a policy for an answer: after its reasoning, after a part of it, or after another one.

An answer is its tokens, what closes it (a box's brace) and the end of the sequence: "7" is not the beginning of "72". Its
probability p(a | P, C) is the product of the probabilities of all of these, teacher-forced at temperature 1 behind prompt
P, reasoning C and delimiter. The answer is *greedy* where each of these tokens is the likeliest: greedy decoding gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atmanrl.faithfulness.base import Answer
from atmanrl.models.policy import Policy
from atmanrl.models.teacher_forcing import answer_scores
from atmanrl.probe.target import Target, target
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.offsets import offsets
from atmanrl.rollouts.prefix import cot_prefixes


@dataclass(frozen=True)
class Answers:
    """What a policy says of B questions.

    Attributes:
        logprobs: `[B]` log p of the whole answer, in nats, float64.
        greedy: `[B]` boolean, whether greedy decoding gives the answer.
    """

    logprobs: Tensor
    greedy: Tensor

    @property
    def probabilities(self) -> Tensor:
        """`[B]` p of the whole answer."""
        return self.logprobs.exp()


def ask(policy: Policy, questions: Sequence[Target]) -> Answers:
    """Ask for the probability of B targets' answers; a question is a target here.

    Those that are alike are computed once, and a prompt is read once for all that begin with it.

    Raises:
        PolicyError: a question exceeds the model's context.
    """
    scores = answer_scores(
        policy, [q.prompt_ids for q in questions], [q.context_ids for q in questions], [q.answer_ids for q in questions],
    )  # fmt: skip
    return Answers(
        torch.stack([each.logprobs.double().sum() for each in scores]),
        torch.stack([each.greedy.all() for each in scores]),
    )


def question(rollout: Rollout, policy: Policy, answer: Answer | str) -> Target:
    """The question that a rollout itself asks: its tokens with an answer and the end of the sequence.

    Args:
        rollout: with a delimiter.
        policy: with a tokenizer.
        answer: `own`, `gold`, or the text of another answer behind a space: ` 43`.
    """
    text = {"own": rollout.parts.answer or "", "gold": rollout.problem.gold}.get(answer, answer)
    return target(rollout, policy.tokenizer, policy.eos_ids[0], text)


def has_answer(rollout: Rollout, policy: Policy) -> bool:
    """Whether a rollout ends in an answer, and prompt, reasoning and either answer fit into the policy's context.

    A reasoning may be empty: an answer that needs none can be asked for too.
    """
    if not (rollout.parts.answer or "").strip() or not rollout.problem.gold.strip():
        return False
    return all(len(question(rollout, policy, whose)) <= policy.context_length for whose in ("own", "gold"))


def separator(rollout: Rollout, policy: Policy) -> tuple[int, ...]:
    """The tokens of white space at the end of a reasoning, which stand between it and the delimiter.

    A shortened reasoning keeps them: without, the policy would meet a form that it never writes, and what it then says
    would not be for want of the words.
    """
    ids = rollout.cot_ids
    read = offsets(policy.tokenizer, ids, rollout.parts.splitter.visible(policy.tokenizer))
    end = len(read.text.rstrip())
    begin = next(k for k in range(len(ids) + 1) if read.ends[k] >= end and read.whole[k])
    return tuple(ids[begin:])


def shortened(rollout: Rollout, policy: Policy, percents: Sequence[int]) -> list[tuple[int, ...]]:
    """The reasoning's first words, for several shares in per cent, each with the reasoning's `separator`."""
    ids, end = tuple(rollout.cot_ids), separator(rollout, policy)
    prefixes = cot_prefixes(rollout, policy.tokenizer, percents)
    return [ids if percent == 100 else (*prefix, *end) for percent, prefix in zip(percents, prefixes, strict=True)]


def beginnings(rollout: Rollout, policy: Policy, answer: Answer, percents: Sequence[int]) -> list[Target]:
    """A rollout's question after each of several shares of its reasoning (see `shortened`)."""
    whole = question(rollout, policy, answer)
    return [replace(whole, cot_ids=part) for part in shortened(rollout, policy, percents)]


def retold(rollout: Rollout, policy: Policy, text: str) -> tuple[int, ...]:
    """The tokens of another text in the place of the reasoning."""
    return tuple(rollout.parts.splitter.text_ids(policy.tokenizer, text))
