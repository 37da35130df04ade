"""`Scorer`: log-probabilities and entropies of rollouts under a model, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from atmanrl.distributed import is_sharded, processes
from atmanrl.models.batching import cheapest_batches, pass_tokens, positions, work
from atmanrl.models.layers import takes_positions
from atmanrl.models.policy import Policy
from atmanrl.models.prompts import SharedPrompts
from atmanrl.models.token_scores import scores_at
from atmanrl.pulse import beat
from atmanrl.rollouts.batch import Rollout, RolloutBatch


@dataclass(frozen=True)
class Scored:
    """B rollouts as a model sees them, padded to C tokens.

    Attributes:
        rows: their numbers in the batch.
        completion_mask: `[B, C]` boolean, true at tokens of the completion that count here.
        logprobs: `[B, C]` of the completions' tokens at the sampling temperature, 0 on padding.
        entropy: `[B, C]` in nats, of the distribution that each token was drawn from, 0 on padding; no gradient.

    Example:
        `Scored([3], tensor([[True, True]]), logprobs=tensor([[-0.1, -0.7]]), entropy=tensor([[0.3, 1.2]]))`
    """

    rows: list[int]
    completion_mask: Tensor
    logprobs: Tensor
    entropy: Tensor


class Scorer:
    """Reads rollouts with a model and scores the tokens of their completions.

    Args:
        policy: names the padding token, and is the model unless a call names another.
        temperature: of sampling.
        tokens: most tokens, padding counted, in one forward pass.
        share_prompts: whether a prompt is read once for all its rollouts, where the model allows it and it saves time.
    """

    def __init__(self, policy: Policy, temperature: float, tokens: int, share_prompts: bool = True) -> None:
        self.policy, self.temperature, self.tokens, self.share_prompts = policy, temperature, tokens, share_prompts

    def parts(self, batch: RolloutBatch, rows: Sequence[int], model: Any = None) -> Iterator[Scored]:
        """Score the rollouts `rows` in parts of like lengths, each within the budget of tokens.

        With gradients, the backward pass of a part must have run before the next part is asked for, and the iterator
        must be exhausted: what the prompts learn is led back to the weights at the end.

        Args:
            batch: of rollouts.
            rows: which of them.
            model: to score with; None is the policy's own.
        """
        model = self.policy.model if model is None else model
        possible = self.share_prompts and takes_positions(model)
        if possible and all(len(batch.rollouts[i].prompt_ids) > 1 for i in rows) and self._saves(batch, rows, model):
            yield from self._with_shared_prompts(batch, rows, model)
        else:
            yield from self._full_sequences(batch, rows, model)

    def own_parts(self, batch: RolloutBatch, rows: Sequence[int]) -> Iterator[Scored]:
        """Score this process's partition of the rollouts `rows` in parts (see `parts`). All processes must ask for them.

        A process takes full groups, so that it reads a prompt once for all its rollouts. But sharded weights are gathered
        layer by layer in every pass, forward and backward, which all processes must do together: there rollouts are
        divided one by one, into equally many parts, each with its prompts; a process that has nothing left reads the
        shortest rollout, of which nothing counts.
        """
        lengths = [_length(batch.rollouts[i]) for i in rows]
        me, model = processes(), self.policy.model
        if not is_sharded(model):
            groups = [list(group) for _, group in groupby(range(len(rows)), lambda i: rows[i] // batch.group_size)]
            own = partition([sum(lengths[i] for i in group) for group in groups], me.count)[me.rank]
            yield from self.parts(batch, [rows[i] for k in own for i in groups[k]])
            return
        for part in partition_in_parts(lengths, self.tokens, pass_tokens(model), me.count)[me.rank]:
            if part:
                yield self._read(batch, [rows[i] for i in part], model)
            else:
                idle = self._read(batch, [rows[lengths.index(min(lengths))]], model)
                nothing = torch.zeros_like(idle.completion_mask)
                yield replace(idle, completion_mask=nothing, entropy=idle.entropy * nothing)

    def logprobs(self, batch: RolloutBatch, model: Any = None) -> list[Tensor]:
        """Return the log-probabilities `[C]` of each rollout's completion, on the CPU, without gradients."""
        by_row: dict[int, Tensor] = {}
        with torch.no_grad():
            for part in self.parts(batch, range(len(batch)), model):
                beat("scoring", len(by_row), len(batch))
                for row, values, real in zip(part.rows, part.logprobs.cpu(), part.completion_mask.cpu(), strict=True):
                    by_row[row] = values[real]
        return [by_row[row] for row in range(len(batch))]

    def old_logprobs(self, batch: RolloutBatch, rescore: bool | None = None) -> list[Tensor]:
        """Return the log-probabilities `[C]` of each rollout's completion under the policy that sampled it.

        Args:
            batch: of rollouts that the policy has just sampled.
            rescore: whether they are computed again; None does so where the sampler's would differ from the update's own by
                more than float32's rounding.
        """
        kinds = {weight.dtype for weight in self.policy.parameters()} | {self.policy.computed_in}
        if rescore or (rescore is None and kinds & {torch.bfloat16, torch.float16}):
            return self.logprobs(batch)
        return [torch.tensor(r.completion.logprobs) for r in batch.rollouts]

    def _saves(self, batch: RolloutBatch, rows: Sequence[int], model: Any) -> bool:
        """Whether it takes less time to read prompts once for all their rollouts.

        On a CPU it does, since tokens are what costs time. On a GPU another pass for the prompts may cost more.
        """
        if self.policy.device.type != "cuda":
            return True
        by_itself = pass_tokens(model)
        prompts = {tuple(batch.rollouts[i].prompt_ids) for i in rows}
        whole = work([_length(batch.rollouts[i]) for i in rows], self.tokens, by_itself)
        apart = work([len(prompt) for prompt in prompts], self.tokens, by_itself)
        return apart + work([len(batch.rollouts[i].completion.ids) for i in rows], self.tokens, by_itself) < whole

    def _with_shared_prompts(self, batch: RolloutBatch, rows: Sequence[int], model: Any) -> Iterator[Scored]:
        """Read each different prompt once, without its last token; that token and the completion follow it, row by row."""
        device = self.policy.device
        askers: dict[tuple[int, ...], list[int]] = {}
        for i in rows:
            askers.setdefault(tuple(batch.rollouts[i].prompt_ids), []).append(i)
        prompts, by_itself = list(askers), pass_tokens(model)
        for chosen in cheapest_batches([len(p) for p in prompts], self.tokens, by_itself):
            shared = SharedPrompts(model, [prompts[q][:-1] for q in chosen], self.policy.pad_id, device)
            own = [(row, k) for k, q in enumerate(chosen) for row in askers[prompts[q]]]
            if not shared.shared:
                self.share_prompts = False  # it will not be asked again
                yield from self._full_sequences(batch, [row for row, _ in own], model)
                continue
            lengths = [len(batch.rollouts[row].completion.ids) for row, _ in own]
            for part in cheapest_batches(lengths, self.tokens, by_itself):
                yield self._after_prompts(shared, batch, [own[i] for i in part], model)
            shared.backward()

    def _after_prompts(
        self, shared: SharedPrompts, batch: RolloutBatch, rows: list[tuple[int, int]], model: Any
    ) -> Scored:
        """Score rollouts, given as (row, prompt), after their prompts."""
        device = self.policy.device
        completions = [batch.rollouts[row].completion.ids for row, _ in rows]
        width = max(map(len, completions))
        ids = torch.full((len(rows), width), self.policy.pad_id)
        real = torch.zeros(len(rows), width, dtype=torch.bool)
        for k, (row, _) in enumerate(rows):
            ids[k, : len(completions[k])] = torch.tensor([batch.rollouts[row].prompt_ids[-1], *completions[k][:-1]])
            real[k, : len(completions[k])] = True
        real = real.to(device)
        cache, before = shared.select(torch.tensor([prompt for _, prompt in rows], device=device))
        mask = torch.cat([before, real.long()], dim=1)
        tokens = torch.cat([torch.tensor(ids) for ids in completions]).to(device)
        scores = scores_at(
            model, real, tokens, self.temperature, input_ids=ids.to(device), attention_mask=mask,
            position_ids=positions(mask)[:, -width:], past_key_values=cache, use_cache=True,
        )  # fmt: skip
        return _scored([row for row, _ in rows], real, *scores)

    def _full_sequences(self, batch: RolloutBatch, rows: Sequence[int], model: Any) -> Iterator[Scored]:
        """Read prompt and completion of each rollout as one sequence."""
        lengths = [_length(batch.rollouts[i]) for i in rows]
        for part in cheapest_batches(lengths, self.tokens, pass_tokens(model)):
            yield self._read(batch, [rows[k] for k in part], model)

    def _read(self, batch: RolloutBatch, rows: list[int], model: Any) -> Scored:
        """Read prompts and completions in one pass."""
        s = batch.sequences(rows, self.policy.pad_id, self.policy.device)
        scores = scores_at(
            model, s.before, s.tokens, self.temperature, input_ids=s.input_ids, attention_mask=s.attention_mask,
            position_ids=positions(s.attention_mask), use_cache=False,
        )  # fmt: skip
        return _scored(rows, s.completion, *scores)


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.completion.ids)


def _scored(rows: list[int], mask: Tensor, logprobs: Tensor, entropy: Tensor) -> Scored:
    def dense(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    return Scored(rows, mask, dense(logprobs), dense(entropy))


def partition(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Divide sequences among `count` processes, so that each has its part of the long and of the short ones.

    Args:
        lengths: of the sequences, in tokens.
        count: of the processes.

    Returns:
        For each process, the indices of its sequences.

    Example:
        `partition([90, 10, 80, 20], 2)` is `[[1, 2], [0, 3]]`: 90 tokens for the one, 110 for the other.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [sorted(order[rank::count]) for rank in range(count)]


def partition_in_parts(lengths: Sequence[int], budget: int, by_itself: float, count: int) -> list[list[list[int]]]:
    """Divide sequences among processes, and each process's into parts; all have equally many, the last may be empty.

    Args:
        lengths: of the sequences, in tokens.
        budget: most tokens of a part, padding counted.
        by_itself: how many tokens a pass costs by itself.
        count: of the processes.
    """
    by_process = [
        [[own[k] for k in part] for part in cheapest_batches([lengths[i] for i in own], budget, by_itself)]
        for own in partition(lengths, count)
    ]
    most = max(map(len, by_process))
    return [[*parts, *([] for _ in range(most - len(parts)))] for parts in by_process]
