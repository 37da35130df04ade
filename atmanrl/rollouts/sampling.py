"""Sampling completions from the live policy: the prompt is read once for a group, finished rows are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.forward import evaluating, head_at, positions, token_logprobs
from atmanrl.policy import Policy
from atmanrl.rollouts.cache import repeat_with_room
from atmanrl.rollouts.ends import Ends
from atmanrl.rollouts.seeds import inverse_cdf
from atmanrl.rollouts.truncation import ALL_TOKENS, Truncation


@dataclass(frozen=True)
class Completion:
    """What the policy said.

    Attributes:
        ids: token ids, the end-of-sequence token included where it came.
        logprobs: of each token, at the sampling temperature.
        finished: whether it came to an end, by an end-of-sequence token or a stop string, and was not cut off.
    """

    ids: list[int]
    logprobs: list[float]
    finished: bool


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both `[B, S]`, of rows padded on the left."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    temperature: float = 1.0,
    truncation: Truncation = ALL_TOKENS,
    stop: Sequence[str] = (),
) -> list[list[Completion]]:
    """Complete each of Q prompts G times.

    Args:
        policy: built; it is in eval mode while it samples, and each module is left in the mode in which it was found.
        prompts: token ids of Q prompts.
        uniform: `[Q, G, T]`, one number in [0, 1) for every token that may be drawn (see `seeds.uniforms`).
        temperature: of the softmax; log-probabilities are taken at it too.
        truncation: which tokens may be drawn. Log-probabilities are those of the whole softmax all the same, as in
            TRL: the policy that learns is compared with them, and it is not truncated.
        stop: a completion ends with the token that completes one of these strings in its text.

    Returns:
        Q lists of G completions of at most T tokens.

    Raises:
        UserError: a prompt and T tokens do not fit into the model's context, or the model gives NaN.
    """
    queries, group, limit = uniform.shape
    longest = max(map(len, prompts))
    if longest + limit > policy.context_length:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={limit} exceed the model's context of "
            f"{policy.context_length} tokens; lower data.max_new_tokens."
        )
    device = policy.device
    ends = Ends(policy, stop)
    with evaluating(policy.model):
        tokens, logprobs, lengths, ended = _decode(
            policy, prompts, uniform.to(device).flatten(0, 1), group, temperature, truncation, ends
        )
    _check(logprobs, group)
    completions = [
        Completion(ids[:length].tolist(), scores[:length].tolist(), finished)
        for ids, scores, length, finished in zip(
            tokens.cpu(), logprobs.cpu(), lengths.tolist(), ended.tolist(), strict=True
        )
    ]
    return [completions[q * group : (q + 1) * group] for q in range(queries)]


def _decode(
    policy: Policy, prompts: Sequence[Sequence[int]], uniform: Tensor, group: int, temperature: float,
    truncation: Truncation, ends: Ends,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Tokens and log-probabilities `[B, T]`, lengths and whether they came to an end `[B]`, of B = Q x G completions."""
    model, device = policy.model, policy.device
    rows, limit = uniform.shape
    ids, mask = left_padded(prompts, policy.pad_id, device)
    width = ids.shape[1]
    last = torch.zeros_like(mask, dtype=torch.bool)
    last[:, -1] = True
    with head_at(model, last):
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True)
    logits = out.logits[0].repeat_interleave(group, dim=0)
    cache = out.past_key_values
    repeat_with_room(cache, group)
    position = mask.sum(1, keepdim=True).repeat_interleave(group, dim=0)
    mask = torch.cat([mask, mask.new_ones(len(mask), limit)], dim=1).repeat_interleave(group, dim=0)

    tokens = torch.full((rows, limit), policy.pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, limit, device=device)
    lengths = torch.full((rows,), limit, dtype=torch.long, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    active = torch.arange(rows, device=device)
    for t in range(limit):
        scaled = logits.float() / temperature
        drawn = inverse_cdf(truncation(scaled).softmax(-1), uniform[active, t])
        tokens[active, t] = drawn
        logprobs[active, t] = token_logprobs(scaled, drawn)
        over = ends(tokens, active, t)
        if over.any():
            done = active[over]
            lengths[done], ended[done] = t + 1, True
            keep = (~over).nonzero()[:, 0]
            if not len(keep):
                break
            cache.batch_select_indices(keep)
            active, mask, position, drawn = active[keep], mask[keep], position[keep], drawn[keep]
        if t + 1 == limit:
            break
        out = model(
            input_ids=drawn[:, None], attention_mask=mask[:, : width + t + 1], position_ids=position + t,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        logits, cache = out.logits[:, -1], out.past_key_values
    return tokens, logprobs, lengths, ended


def _check(logprobs: Tensor, group: int) -> None:
    """One look after all tokens are drawn: a look at each token would make the device wait."""
    if logprobs.isnan().any():
        row, token = logprobs.isnan().nonzero()[0].tolist()
        raise UserError(
            f"the model gives NaN logits (prompt {row // group + 1} of the batch, token {token + 1} of sample "
            f"{row % group + 1}): its weights have diverged (lower the learning rate) or its numbers overflow (take "
            "bfloat16 or float32 instead of float16)."
        )
