"""Sequences of different lengths in one pass: their positions, and which of them to read together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def positions(attention_mask: Tensor) -> Tensor:
    """Return position ids `[B, S]` of left- or right-padded rows: each row counts its own tokens from 0."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def right_padded(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Return token ids of sequences, and the mask that is 1 on their own tokens and 0 on the padding behind them.

    Args:
        sequences: token ids of B sequences, the longest of S.
        pad_id: what fills the others.

    Returns:
        Two tensors `[B, S]` of integers.
    """
    lengths = torch.tensor([len(ids) for ids in sequences])
    width = int(lengths.max())
    ids = torch.tensor([[*ids, *[pad_id] * (width - len(ids))] for ids in sequences])
    return ids, (torch.arange(width) < lengths[:, None]).long()


LAYER_OPERATIONS = {"cuda": 3e12, "cpu": 6e8}
"""FLOPs of learning that a device could do in the time that a layer of a pass takes by itself, forward and backward.

On a GPU it is the time in which Python starts the layer's kernels: 7.5 ms beside an H100 (`experiments/gpu`), at 40 % of its
peak. On a CPU it is small, so that padding costs more than another pass; other devices are taken for GPUs.
"""


def pass_tokens(model: nn.Module) -> float:
    """Return how many tokens the model's device could learn from in the time that a pass takes by itself.

    On a GPU some 8,000 for a model of 1B parameters, 5,000 for 3B and 600 for 70B: a pass over fewer takes no less time.
    On a CPU some 500 for a model of 1M parameters and 30 for 135M.
    """
    device = next(model.parameters(), torch.empty(0)).device.type
    layers = [part for part in model.modules() if isinstance(part, nn.ModuleList)]
    weights, count = max(((sum(p.numel() for p in part.parameters()), len(part)) for part in layers), default=(1, 0))
    return LAYER_OPERATIONS.get(device, LAYER_OPERATIONS["cuda"]) * count / (6 * max(1, weights))


def work(lengths: Sequence[int], budget: int, pass_tokens: float) -> float:
    """Return what `cheapest_batches` of sequences cost: tokens with their padding, and `pass_tokens` a batch."""
    batches = cheapest_batches(lengths, budget, pass_tokens)
    return sum(len(batch) * max(lengths[i] for i in batch) + pass_tokens for batch in batches)


def cheapest_batches(lengths: Sequence[int], budget: int, pass_tokens: float) -> list[list[int]]:
    """Return the indices of sequences in batches of similar lengths, divided so that the work is least.

    The work is the tokens with their padding, and some for each pass: batches as full as the budget allows pad short
    sequences to the longest, many small ones pay for every pass.

    Args:
        lengths: of the sequences.
        budget: most tokens of a batch, padding counted. A sequence longer than it stands alone.
        pass_tokens: how many tokens a pass costs by itself, whatever it reads; see the function of that name.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best, begins = [0.0], [0]  # the least work for the first k sequences, and where their last batch begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        starts = range(max(0, end - max(1, budget // longest)), end)
        work = [best[s] + (end - s) * longest + pass_tokens for s in starts]
        best.append(min(work))
        begins.append(starts[work.index(best[-1])])
    batches, end = [], len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]
