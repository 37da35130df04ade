"""Sampling completions from the live policy: the prompt is read once for a group, finished rows are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.forward import evaluating, head_at, positions, token_logprobs
from atmanrl.policy import Policy
from atmanrl.rollouts.seeds import inverse_cdf


@dataclass(frozen=True)
class Completion:
    """What the policy said.

    Attributes:
        ids: token ids, the end-of-sequence token included where it came.
        logprobs: of each token, at the sampling temperature.
        finished: whether an end-of-sequence token came before the limit.
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
    policy: Policy, prompts: Sequence[Sequence[int]], uniform: Tensor, temperature: float = 1.0
) -> list[list[Completion]]:
    """Complete each of Q prompts G times.

    Args:
        policy: built; it is in eval mode while it samples, and each module is left in the mode in which it was found.
        prompts: token ids of Q prompts.
        uniform: `[Q, G, T]`, one number in [0, 1) for every token that may be drawn (see `seeds.uniforms`).
        temperature: of the softmax; log-probabilities are taken at it too.

    Returns:
        Q lists of G completions of at most T tokens.

    Raises:
        UserError: a prompt and T tokens do not fit into the model's context.
    """
    queries, group, limit = uniform.shape
    longest = max(map(len, prompts))
    if longest + limit > policy.context_length:
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={limit} exceed the model's context of "
            f"{policy.context_length} tokens; lower data.max_new_tokens."
        )
    model, device = policy.model, policy.device
    with evaluating(model):
        tokens, logprobs, lengths = _decode(policy, prompts, uniform.to(device).flatten(0, 1), group, temperature)
    eos = torch.tensor(policy.eos_ids)
    completions = []
    for ids, scores, length in zip(tokens.cpu(), logprobs.cpu(), lengths.tolist(), strict=True):
        ended = bool(torch.isin(ids[length - 1], eos))
        completions.append(Completion(ids[:length].tolist(), scores[:length].tolist(), ended))
    return [completions[q * group : (q + 1) * group] for q in range(queries)]


def _decode(
    policy: Policy, prompts: Sequence[Sequence[int]], uniform: Tensor, group: int, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, log-probabilities `[B, T]` and lengths `[B]` of B = Q x G completions."""
    model, device = policy.model, policy.device
    rows, limit = uniform.shape
    ids, mask = left_padded(prompts, policy.pad_id, device)
    last = torch.zeros_like(mask, dtype=torch.bool)
    last[:, -1] = True
    with head_at(model, last):
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True)
    logits = out.logits[0].repeat_interleave(group, dim=0)
    cache = out.past_key_values
    cache.batch_repeat_interleave(group)
    mask = mask.repeat_interleave(group, dim=0)

    tokens = torch.full((rows, limit), policy.pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, limit, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    eos = torch.tensor(policy.eos_ids, device=device)
    active = torch.arange(rows, device=device)
    for t in range(limit):
        scaled = logits.float() / temperature
        drawn = inverse_cdf(scaled.softmax(-1), uniform[active, t])
        tokens[active, t] = drawn
        logprobs[active, t] = token_logprobs(scaled, drawn)
        lengths[active] += 1
        going = ~torch.isin(drawn, eos)
        if t + 1 == limit or not going.any():
            break
        if not going.all():
            keep = going.nonzero()[:, 0]
            cache.batch_select_indices(keep)
            active, mask, drawn = active[keep], mask[keep], drawn[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        out = model(
            input_ids=drawn[:, None], attention_mask=mask, position_ids=positions(mask)[:, -1:],
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        logits, cache = out.logits[:, -1], out.past_key_values
    return tokens, logprobs, lengths
