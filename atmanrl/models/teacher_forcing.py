"""Teacher forcing: how likely a causal language model finds an answer after a context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.models.batching import cheapest_batches, pass_tokens, positions, right_padded
from atmanrl.models.errors import PolicyError
from atmanrl.models.layers import takes_positions
from atmanrl.models.modes import evaluating
from atmanrl.models.policy import Policy
from atmanrl.models.prompts import SharedPrompts
from atmanrl.models.token_scores import likeliest_scores, scored_at


@dataclass(frozen=True)
class _Sequence:
    """Token ids of a prompt, of what stands between it and the answer, and of the answer."""

    prompt: tuple[int, ...]
    context: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.context) + len(self.answer)


@dataclass(frozen=True)
class AnswerScores:
    """An answer of T tokens, teacher-forced.

    Attributes:
        logprobs: `[T]` log p(token | what stands before it), in nats.
        greedy: `[T]` boolean, whether each is the likeliest token where it stands.

    Example:
        `AnswerScores(logprobs=tensor([-0.2, -1.3]), greedy=tensor([True, False]))`
    """

    logprobs: Tensor
    greedy: Tensor


def answer_logprobs(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    micro_batch_tokens: int = 16384,
) -> list[Tensor]:
    """Return log p(answer token | prompt, context, the answer tokens before it) of B sequences, in nats.

    Each different prompt is read once for all sequences that begin with it, where the model's cache can be shared, and
    sequences that are alike are computed once. The model is in eval mode, at temperature 1, and no gradient is recorded.

    Args:
        policy: built; its weights are read on the device where they are.
        prompts: B lists of token ids; they may be empty.
        contexts: B lists of token ids between prompt and answer (reasoning and delimiter); they may be empty.
        answers: B lists of at least one token id.
        micro_batch_tokens: most tokens, padding counted, in one forward pass: memory, not the result.

    Returns:
        For each sequence a tensor `[T]` on the CPU with one value for each of its T answer tokens, in float32 (float64
        for a policy in float64).

    Raises:
        PolicyError: an answer has no token or nothing before it, or a sequence exceeds the model's context.

    Example:
        `answer_logprobs(policy, [[5, 6]], [[7, 8, 9]], [[10, 11]])` gives `[tensor([-0.2, -1.3])]`.
    """
    scores = answer_scores(policy, prompts, contexts, answers, micro_batch_tokens)
    return [each.logprobs for each in scores]


def answer_scores(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    contexts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    micro_batch_tokens: int = 16384,
) -> list[AnswerScores]:
    """Return what `answer_logprobs` does, and whether each token is the likeliest one: an answer of such tokens is greedy.

    Raises:
        PolicyError: an answer has no token or nothing before it, or a sequence exceeds the model's context.
    """
    sequences = [
        _Sequence(tuple(prompt), tuple(context), tuple(answer))
        for prompt, context, answer in zip(prompts, contexts, answers, strict=True)
    ]
    _check(sequences, policy)
    scores: dict[_Sequence, AnswerScores] = {}
    with torch.no_grad(), evaluating(policy.model):
        for part, values in _read_all(policy, list(dict.fromkeys(sequences)), micro_batch_tokens):
            scores |= zip(part, values, strict=True)
    return [scores[sequence] for sequence in sequences]


def _check(sequences: Sequence[_Sequence], policy: Policy) -> None:
    for k, sequence in enumerate(sequences):
        if not sequence.answer or len(sequence) == len(sequence.answer):
            raise PolicyError(f"sequence {k} needs an answer of at least one token, and at least one token before it.")
        if excess := policy.excess(len(sequence)):
            raise PolicyError(f"sequence {k}: {excess}.")


def _read_all(
    policy: Policy, sequences: list[_Sequence], budget: int
) -> Iterator[tuple[list[_Sequence], list[AnswerScores]]]:
    """Scores of distinct sequences, in parts within the budget of tokens."""
    sharing, by_itself = takes_positions(policy.model), pass_tokens(policy.model)
    alone = [sequence for sequence in sequences if not sharing or len(sequence.prompt) < 2]
    askers: dict[tuple[int, ...], list[_Sequence]] = {}
    for sequence in sequences:
        if sharing and len(sequence.prompt) > 1:
            askers.setdefault(sequence.prompt, []).append(sequence)
    prompts = list(askers)
    for chosen in cheapest_batches([len(prompt) for prompt in prompts], budget, by_itself):
        # the last token of a prompt is left to those that follow: logits at it may be wanted
        shared = SharedPrompts(policy.model, [prompts[k][:-1] for k in chosen], policy.pad_id, policy.device)
        followers = [(sequence, place) for place, k in enumerate(chosen) for sequence in askers[prompts[k]]]
        if not shared.shared:  # sliding windows, running states
            alone += [sequence for sequence, _ in followers]
            continue
        lengths = [len(sequence) - len(sequence.prompt) for sequence, _ in followers]
        for batch in cheapest_batches(lengths, budget, by_itself):
            part, places = zip(*(followers[i] for i in batch), strict=True)
            yield list(part), _read(policy, part, (shared, torch.tensor(places, device=policy.device)))
    for batch in cheapest_batches([len(sequence) for sequence in alone], budget, by_itself):
        yield [alone[i] for i in batch], _read(policy, [alone[i] for i in batch])


def _read(
    policy: Policy, sequences: Sequence[_Sequence], after: tuple[SharedPrompts, Tensor] | None = None
) -> list[AnswerScores]:
    """One forward pass: over whole sequences, or over what follows their prompts in a cache.

    Args:
        policy: the model.
        sequences: B of them.
        after: prompts without their last tokens, and which of them `[B]` each sequence begins with.
    """
    # nothing is asked about what follows the last token, so it is not read
    tails = [[*(s.prompt if after is None else s.prompt[-1:]), *s.context, *s.answer[:-1]] for s in sequences]
    ids, own = right_padded(tails, policy.pad_id)
    width, ends = ids.shape[1], own.sum(dim=1, keepdim=True)
    before = own.bool() & (torch.arange(width) >= ends - torch.tensor([len(s.answer) for s in sequences])[:, None])
    mask, cache = own.to(policy.device), None
    if after is not None:
        shared, places = after
        cache, prompt_mask = shared.select(places)
        mask = torch.cat([prompt_mask, mask], dim=1)
    tokens = torch.tensor([token for s in sequences for token in s.answer], device=policy.device)
    scores = scored_at(
        policy.model, before.to(policy.device), tokens, likeliest_scores, input_ids=ids.to(policy.device),
        attention_mask=mask, position_ids=positions(mask)[:, -width:], past_key_values=cache,
        use_cache=cache is not None,
    )  # fmt: skip
    parts = [torch.split(each.cpu(), [len(s.answer) for s in sequences]) for each in scores]
    return [AnswerScores(*each) for each in zip(*parts, strict=True)]
