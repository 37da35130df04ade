"""Rankings of a reasoning's tokens: by a saliency, by the attention of the last tokens, or by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from torch import Tensor

from atmanrl.faithfulness.base import Answer
from atmanrl.faithfulness.information_flow import hooked
from atmanrl.models.batching import cheapest_batches, pass_tokens, positions, right_padded
from atmanrl.models.policy import Policy
from atmanrl.probe.attention import ProbeError
from atmanrl.probe.module import MaskProbe
from atmanrl.probe.target import Target
from atmanrl.rollouts.batch import Rollout, RolloutBatch

BATCH_TOKENS = 1024
"""Most tokens, padding counted, of a forward pass that keeps the attention of all layers."""


def by_saliency(rollouts: Sequence[Rollout], policy: Policy, probe: MaskProbe, answer: Answer) -> list[list[float]]:
    """Return the saliency of each reasoning's tokens towards an answer, of B rollouts that can be probed."""
    if answer == "own":
        rollouts = [replace(r, problem=replace(r.problem, gold=r.parts.answer or "")) for r in rollouts]
    saliency = probe.solve(policy, RolloutBatch(list(rollouts), 1)).saliency
    return [list(each or ()) for each in saliency]


def by_attention(questions: Sequence[Target], policy: Policy) -> list[list[float]]:
    """Return the attention that each reasoning's tokens get from the positions that predict the answer.

    It is the mean over these positions, over all heads and over all layers with softmax attention.

    Raises:
        ProbeError: the model cannot run with eager attention, or shows none.
    """
    weights: dict[int, list[float]] = {}
    with hooked(policy, "eager"):
        for batch in cheapest_batches([len(each) for each in questions], BATCH_TOKENS, pass_tokens(policy.model)):
            weights |= zip(batch, _attention(policy, [questions[i] for i in batch]), strict=True)
    return [weights[k] for k in range(len(questions))]


def _attention(policy: Policy, questions: Sequence[Target]) -> list[list[float]]:
    sequences = [[*q.prompt_ids, *q.tail[:-1]] for q in questions]
    ids, mask = (each.to(policy.device) for each in right_padded(sequences, policy.pad_id))
    layers: list[Tensor] = policy.model(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False,
        output_attentions=True,
    ).attentions  # fmt: skip
    shown = [layer for layer in layers or () if layer is not None]
    if not shown:
        raise ProbeError(f"{type(policy.model).__name__} shows no attention, so tokens cannot be ranked by it.")
    mean = sum(layer.float().mean(dim=1) for layer in shown) / len(shown)
    assert isinstance(mean, Tensor)
    rows = []
    for q, sequence, each in zip(questions, sequences, mean, strict=True):
        begin = len(q.prompt_ids)
        predicting = each[len(sequence) - len(q.answer_ids) : len(sequence)].mean(dim=0)
        rows.append(predicting[begin : begin + len(q.cot_ids)].tolist())
    return rows


def by_chance(rollouts: Sequence[Rollout], seed: int) -> list[list[float]]:
    """Return random numbers for each reasoning's tokens, which depend on seed, problem and sample alone."""
    numbers = []
    for rollout in rollouts:
        rng = Random(f"{seed}/{rollout.problem.id}/{rollout.sample}")
        numbers.append([rng.random() for _ in rollout.cot_ids])
    return numbers
