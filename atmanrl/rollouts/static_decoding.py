"""Decoding with a cache of fixed shape, in steps that can be captured as a CUDA graph or compiled.

The host looks every `CHUNK` tokens: it finds the rows that have ended (by then they have drawn some tokens too many, which
are cut off), and where enough of them have, or the buffers are full, makes a new state with fewer rows or more columns. Both
come in few sizes, so that few graphs are captured and few shapes compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atmanrl.models.cache import is_filled
from atmanrl.models.policy import Policy
from atmanrl.pulse import beat
from atmanrl.rollouts.cuda_graphs import CapturedSteps
from atmanrl.rollouts.decoding import Decoded, Prefill
from atmanrl.rollouts.decoding_state import DecodingState, DecodingStep, decode_step
from atmanrl.rollouts.sampler import SamplingOptions
from atmanrl.rollouts.stop_criteria import StopCriteria

CHUNK = 16
"""Tokens that are drawn between two looks of the host."""
COLUMNS = 256
"""Buffers have a multiple of so many columns. All of `max_new_tokens` would be read by every token, used or not."""
FEWEST_ROWS = 8
"""A batch of fewer rows is not faster: decoding waits for the weights."""


def why_not_static(policy: Policy, cache: Cache) -> str | None:
    """Return why a model cannot decode with a static cache, or None where it can.

    Args:
        policy: built.
        cache: its own, after the prompts.
    """
    attention = policy.model.config.get_text_config()._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"{attention} attention cuts its keys by their length (sdpa and eager attention take a mask)"
    for i, layer in enumerate(cache.layers):
        if not is_filled(layer):
            return f"layer {i} keeps another state than keys and values ({type(layer).__name__})"
    return None


def decode_static(
    policy: Policy, read: Prefill, uniforms: Tensor, options: SamplingOptions, criteria: StopCriteria,
    step: DecodingStep = decode_step, cuda_graphs: Literal["no", "try", "yes"] = "no",
) -> Decoded:  # fmt: skip
    """Decode with a static cache; the tokens are those of `decode_dynamic`.

    Args:
        policy: in eval mode.
        read: the prompts, with a cache for which `why_not_static` is None; it is used up.
        uniforms: `[Q, G, T]` on the policy's device.
        options: how tokens are drawn.
        criteria: where completions end.
        step: `decode_step`, or what a compiler has made of it.
        cuda_graphs: whether steps are captured as a CUDA graph: `try` goes on without one if a step cannot be captured.
    """
    queries, group, limit = uniforms.shape
    width, most = read.mask.shape[1], policy.context_length
    result = Decoded(
        torch.zeros(queries * group, limit, dtype=torch.long), torch.zeros(queries * group, limit),
        torch.full((queries * group,), limit), torch.zeros(queries * group, dtype=torch.bool),
    )  # fmt: skip
    active = list(range(queries * group))  # which completion each row of the state is
    rows = torch.tensor(_filled(active), device=uniforms.device)
    queried = rows // group
    state = DecodingState(
        read.cache, queried, columns_for(width + CHUNK, most), width, (1 - read.mask).sum(1)[queried],
        uniforms.flatten(0, 1)[rows], 0,
    )  # fmt: skip
    state.write(read.logits[queried], options)
    run = _runner(policy, state, options, step, cuda_graphs)
    begin, drawn = 0, 1
    while True:
        beat("sampling", drawn, limit)
        running = _look(result, state, active, begin, drawn, criteria)
        if not running or drawn == limit:
            return result
        count = min(CHUNK, limit - drawn)
        kept, columns = _filled(running), state.attention_mask.shape[1]
        needed = width + drawn + count - 1
        if len(kept) < len(state.tokens) or needed > columns:
            del run  # a graph holds the state's memory
            active = [active[i] for i in running]
            state = state.resized(kept, max(columns, columns_for(needed, most)), width + drawn - 1, drawn)
            run = _runner(policy, state, options, step, cuda_graphs)
        run(count)
        begin, drawn = drawn, drawn + count


def _look(
    result: Decoded, state: DecodingState, active: list[int], begin: int, drawn: int, criteria: StopCriteria
) -> list[int]:
    """Take over the tokens from `begin` on; returns the state's rows that go on. The host waits for the device here."""
    tokens = state.tokens[:, begin:drawn].cpu()
    logprobs = state.logprobs[:, begin:drawn].cpu()
    running = []
    for i, row in enumerate(active):
        if result.finished[row]:
            continue
        result.tokens[row, begin:drawn], result.logprobs[row, begin:drawn] = tokens[i], logprobs[i]
        end = criteria.first_end(result.tokens[row, :drawn].tolist(), begin)
        if end is None:
            running.append(i)
        else:
            result.lengths[row], result.finished[row] = end + 1, True
            result.logprobs[row, end + 1 :] = 0
    return running


def _filled(rows: list[int]) -> list[int]:
    """Rows and, up to a power of two, the first of them again."""
    return rows + rows[:1] * (filled_size(len(rows)) - len(rows))


def filled_size(rows: int) -> int:
    """Return how many rows a state has for so many that go on."""
    return max(FEWEST_ROWS, 1 << (rows - 1).bit_length())


def columns_for(needed: int, most: int) -> int:
    """Return the smallest size of buffers that holds so many columns.

    Args:
        needed: columns; `HFSampler` has refused what does not fit into the model's context.
        most: the model's context, which no buffer exceeds: MPT has a bias for that many columns and no more.
    """
    return min(-(-needed // COLUMNS) * COLUMNS, most)


def _runner(
    policy: Policy,
    state: DecodingState,
    options: SamplingOptions,
    step: DecodingStep,
    cuda_graphs: Literal["no", "try", "yes"],
) -> Callable[[int], None]:
    """What takes so many steps, by a CUDA graph if wanted."""

    def take() -> None:
        step(policy.model, state, options)

    if cuda_graphs != "no":
        return CapturedSteps(take, type(policy.model).__name__, required=cuda_graphs == "yes")

    def run(count: int) -> None:
        for _ in range(count):
            take()

    return run
