"""Reading prompts and drawing tokens from the live policy, with a cache that grows and finished rows dropped at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atmanrl.models.batching import positions
from atmanrl.models.cache import select_rows
from atmanrl.models.logits import head_at
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import at_temperature, token_logprobs
from atmanrl.pulse import beat
from atmanrl.rollouts.preallocated import preallocate
from atmanrl.rollouts.sampler import SamplingOptions
from atmanrl.rollouts.seeds import inverse_cdf
from atmanrl.rollouts.stop_criteria import StopCriteria


@dataclass
class Prefill:
    """Q prompts as the model has read them, padded on the left.

    Attributes:
        logits: `[Q, V]` of the first token.
        cache: keys and values of the prompts, of Q rows.
        mask: `[Q, S]`, 1 where a prompt's tokens are.

    Example:
        Of prompts of 1 and 3 tokens, `mask` is `[[0, 0, 1], [1, 1, 1]]`.
    """

    logits: Tensor
    cache: Cache
    mask: Tensor


@dataclass
class Decoded:
    """B = Q x G completions of at most T tokens.

    Attributes:
        tokens: `[B, T]`, anything behind a completion's end.
        logprobs: `[B, T]`, not NaN behind a completion's end.
        lengths: `[B]`, in tokens.
        finished: `[B]`, whether it ended by itself.

    Example:
        Of a completion of 2 tokens that ended and one that was cut off at T = 3, `lengths` is `[2, 3]` and `finished`
        `[True, False]`.
    """

    tokens: Tensor
    logprobs: Tensor
    lengths: Tensor
    finished: Tensor


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both `[B, S]`, of rows padded on the left."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def prefill(policy: Policy, prompts: Sequence[Sequence[int]]) -> Prefill:
    """Read each prompt once, however many completions it is to have."""
    ids, mask = left_padded(prompts, policy.pad_id, policy.device)
    last = torch.zeros_like(mask, dtype=torch.bool)
    last[:, -1] = True
    with head_at(policy.model, last):
        out = policy.model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=True)
    return Prefill(out.logits[0], out.past_key_values, mask)


def draw(logits: Tensor, uniforms: Tensor, options: SamplingOptions) -> tuple[Tensor, Tensor]:
    """Draw a token of each row and take its log-probability, both `[B]`.

    Nothing in here waits for the device or depends on values, so that it can be captured as a CUDA graph.

    Args:
        logits: `[B, V]`.
        uniforms: `[B]` in [0, 1).
        options: temperature and truncation.
    """
    scaled = at_temperature(logits.float(), options.temperature)
    drawn = inverse_cdf(options.truncation(scaled).softmax(-1), uniforms)
    return drawn, token_logprobs(scaled, drawn)


def decode_dynamic(
    policy: Policy, read: Prefill, uniforms: Tensor, options: SamplingOptions, criteria: StopCriteria
) -> Decoded:
    """Decode with a cache that grows; a row leaves the batch with its last token.

    Args:
        policy: in eval mode.
        read: the prompts; the cache is used up.
        uniforms: `[Q, G, T]` on the policy's device.
        options: how tokens are drawn.
        criteria: where completions end.
    """
    model, device = policy.model, policy.device
    group, limit = uniforms.shape[1:]
    uniforms = uniforms.flatten(0, 1)
    rows, width = len(uniforms), read.mask.shape[1]
    logits, cache, mask = read.logits.repeat_interleave(group, dim=0), read.cache, read.mask
    preallocate(cache, group)
    position = mask.sum(1, keepdim=True).repeat_interleave(group, dim=0)
    mask = torch.cat([mask, mask.new_ones(len(mask), limit)], dim=1).repeat_interleave(group, dim=0)

    tokens = torch.full((rows, limit), policy.pad_id, dtype=torch.long, device=device)
    logprobs = torch.zeros(rows, limit, device=device)
    lengths = torch.full((rows,), limit, dtype=torch.long, device=device)
    finished = torch.zeros(rows, dtype=torch.bool, device=device)
    active = torch.arange(rows, device=device)
    for t in range(limit):
        beat("sampling", t, limit)
        drawn, scores = draw(logits, uniforms[active, t], options)
        tokens[active, t], logprobs[active, t] = drawn, scores
        over = criteria(tokens, active, t)
        if over.any():
            done = active[over]
            lengths[done], finished[done] = t + 1, True
            keep = (~over).nonzero()[:, 0]
            if not len(keep):
                break
            select_rows(cache, keep)
            active, mask, position, drawn = active[keep], mask[keep], position[keep], drawn[keep]
        if t + 1 == limit:
            break
        out = model(
            input_ids=drawn[:, None], attention_mask=mask[:, : width + t + 1], position_ids=position + t,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        logits, cache = out.logits[:, -1], out.past_key_values
    return Decoded(tokens, logprobs, lengths, finished)
