"""`Scorer`: log-probabilities and entropies of rollouts under a model, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from atmanrl.distributed import is_sharded, processes
from atmanrl.models.batching import cheapest_batches, positions
from atmanrl.models.layers import takes_positions
from atmanrl.models.policy import Policy
from atmanrl.models.prompts import SharedPrompts
from atmanrl.models.token_scores import scores_at
from atmanrl.rollouts.batch import Rollout, RolloutBatch


@dataclass(frozen=True)
class Scored:
    """B rollouts under a model.

    Attributes:
        rows: their numbers in the batch.
        completion: `[B, C]` boolean, true at tokens of the completion that count here.
        logprobs: `[B, C]` of the completions' tokens at the sampling temperature, 0 on padding.
        entropy: `[B, C]` in nats, of the distribution that each token was drawn from, 0 on padding; no gradient.
    """

    rows: list[int]
    completion: Tensor
    logprobs: Tensor
    entropy: Tensor


class Scorer:
    """Reads rollouts with a model and scores the tokens of their completions.

    Args:
        policy: names the padding token, and is the model unless another is given.
        temperature: of sampling.
        tokens: most tokens, padding counted, in one forward pass.
        share_prompts: whether a prompt is read once for all its rollouts, where the model allows it.
    """

    def __init__(self, policy: Policy, temperature: float, tokens: int, share_prompts: bool = True) -> None:
        self.policy, self.temperature, self.tokens, self.share_prompts = policy, temperature, tokens, share_prompts

    def parts(self, batch: RolloutBatch, rows: Sequence[int], model: Any = None) -> Iterator[Scored]:
        """The rollouts `rows` in parts of like lengths, each within the budget of tokens.

        With gradients, the backward pass of a part must have run before the next part is asked for, and the iterator
        must be exhausted: what the prompts learn is led back to the weights at the end.

        Args:
            batch: of rollouts.
            rows: which of them.
            model: to score with; None is the policy's own.
        """
        model = self.policy.model if model is None else model
        if self.share_prompts and takes_positions(model) and all(len(batch.rollouts[i].prompt_ids) > 1 for i in rows):
            yield from self._with_shared_prompts(batch, rows, model)
        else:
            yield from self._whole(batch, rows, model)

    def dealt(self, batch: RolloutBatch, rows: Sequence[int]) -> Iterator[Scored]:
        """This process's share of the rollouts `rows`, which all processes must ask for, in parts (see `parts`).

        A process takes whole groups, so that it reads a prompt once for all its rollouts. But sharded weights are gathered
        layer by layer in every pass, forward and backward, which all processes must do together: there rollouts are
        shared out one by one, in equally many parts, each with its prompts; a process that has nothing left reads the
        shortest rollout, of which nothing counts.
        """
        lengths = [_length(batch.rollouts[i]) for i in rows]
        me, model = processes(), self.policy.model
        if not is_sharded(model):
            groups = [list(group) for _, group in groupby(range(len(rows)), lambda i: rows[i] // batch.group_size)]
            mine = shares([sum(lengths[i] for i in group) for group in groups], me.count)[me.rank]
            yield from self.parts(batch, [rows[i] for k in mine for i in groups[k]])
            return
        for part in deal(lengths, self.tokens, me.count)[me.rank]:
            if part:
                yield self._read(batch, [rows[i] for i in part], model)
            else:
                idle = self._read(batch, [rows[lengths.index(min(lengths))]], model)
                nothing = torch.zeros_like(idle.completion)
                yield replace(idle, completion=nothing, entropy=idle.entropy * nothing)

    def logprobs(self, batch: RolloutBatch, model: Any = None) -> list[Tensor]:
        """Log-probabilities of each rollout's completion, on the CPU, without gradients."""
        found: dict[int, Tensor] = {}
        with torch.no_grad():
            for part in self.parts(batch, range(len(batch)), model):
                for row, values, real in zip(part.rows, part.logprobs.cpu(), part.completion.cpu(), strict=True):
                    found[row] = values[real]
        return [found[row] for row in range(len(batch))]

    def old_logprobs(self, batch: RolloutBatch, rescore: bool | None = None) -> list[Tensor]:
        """Log-probabilities of each rollout's completion under the policy that sampled it.

        Args:
            batch: of rollouts that the policy has just sampled.
            rescore: whether they are computed again; None does so where the sampler's would differ from the update's own by
                more than float32's rounding.
        """
        kinds = {weight.dtype for weight in self.policy.parameters()} | {self.policy.computed_in}
        if rescore or (rescore is None and kinds & {torch.bfloat16, torch.float16}):
            return self.logprobs(batch)
        return [torch.tensor(r.completion.logprobs) for r in batch.rollouts]

    def _with_shared_prompts(self, batch: RolloutBatch, rows: Sequence[int], model: Any) -> Iterator[Scored]:
        """Each different prompt once, without its last token; that token and the completion follow it, row by row."""
        device = self.policy.device
        askers: dict[tuple[int, ...], list[int]] = {}
        for i in rows:
            askers.setdefault(tuple(batch.rollouts[i].prompt_ids), []).append(i)
        prompts = list(askers)
        for chosen in cheapest_batches([len(p) for p in prompts], self.tokens):
            shared = SharedPrompts(model, [prompts[q][:-1] for q in chosen], self.policy.pad_id, device)
            own = [(row, k) for k, q in enumerate(chosen) for row in askers[prompts[q]]]
            if not shared.shared:
                self.share_prompts = False  # it will not be asked again
                yield from self._whole(batch, [row for row, _ in own], model)
                continue
            lengths = [len(batch.rollouts[row].completion.ids) for row, _ in own]
            for part in cheapest_batches(lengths, self.tokens):
                yield self._after(shared, batch, [own[i] for i in part], model)
            shared.backward()

    def _after(self, shared: SharedPrompts, batch: RolloutBatch, rows: list[tuple[int, int]], model: Any) -> Scored:
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

    def _whole(self, batch: RolloutBatch, rows: Sequence[int], model: Any) -> Iterator[Scored]:
        """Prompt and completion of each rollout in one sequence."""
        lengths = [_length(batch.rollouts[i]) for i in rows]
        for part in cheapest_batches(lengths, self.tokens):
            yield self._read(batch, [rows[k] for k in part], model)

    def _read(self, batch: RolloutBatch, rows: list[int], model: Any) -> Scored:
        """One pass over prompts and completions."""
        s = batch.sequences(rows, self.policy.pad_id, self.policy.device)
        scores = scores_at(
            model, s.before, s.tokens, self.temperature, input_ids=s.input_ids, attention_mask=s.attention_mask,
            position_ids=positions(s.attention_mask), use_cache=False,
        )  # fmt: skip
        return _scored(rows, s.completion, *scores)


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.completion.ids)


def _scored(rows: list[int], completion: Tensor, logprobs: Tensor, entropy: Tensor) -> Scored:
    def dense(values: Tensor) -> Tensor:
        return values.new_zeros(completion.shape).masked_scatter(completion, values)

    return Scored(rows, completion, dense(logprobs), dense(entropy))


def shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices for each of `count` processes, each with its part of the long and of the short ones."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [sorted(order[rank::count]) for rank in range(count)]


def deal(lengths: Sequence[int], budget: int, count: int) -> list[list[list[int]]]:
    """Each process's share in parts; every process has equally many, the last of some are empty.

    Args:
        lengths: of the sequences, in tokens.
        budget: most tokens of a part, padding counted.
        count: of the processes.
    """
    dealt = [
        [[share[k] for k in part] for part in cheapest_batches([lengths[i] for i in share], budget)]
        for share in shares(lengths, count)
    ]
    most = max(map(len, dealt))
    return [[*parts, *([] for _ in range(most - len(parts)))] for parts in dealt]
