"""The probe's loss (Eq. 2) and its gradient in the mask, computed with as little work as an exact result allows.

The weights are frozen, so the backward pass goes to the mask only. The prompt cannot see the mask: its keys and values
are computed once and shared by all rollouts of a problem. Logits are computed at the answer's positions only. Rollouts
stand together with others of about their length, at most `batch_tokens` a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atmanrl.models.batching import cheapest_batches, positions
from atmanrl.models.cache import can_share_cache, fork, read_prompts
from atmanrl.models.logits import logits_at
from atmanrl.models.token_scores import token_logprobs
from atmanrl.probe import mask as masks
from atmanrl.probe.attention import NOT_FINITE, Bias, ProbeError, attention_bias
from atmanrl.probe.lean import constant_past
from atmanrl.probe.target import Target
from atmanrl.rollouts.decoding import left_padded


@dataclass
class Evaluation:
    """The loss of some rollouts at given masks.

    Attributes:
        loss: `[B]` mean cross-entropy of the gold answer's tokens, in nats (Eq. 2).
        gradient: `[P]` of each rollout's own loss in its mask's values, packed; None if it was not asked for.
        logprobs: `[B, N]` log-probability of each answer token, 0 on padding.
    """

    loss: Tensor
    gradient: Tensor | None
    logprobs: Tensor


class Objective:
    """Loss and gradient for any subset of some rollouts' masks.

    Args:
        model: a Hugging Face causal language model, frozen, in eval mode and hooked (see `attention_hook`).
        targets: B rollouts.
        scale: of the bias: `scale * min(H, 0)`.
        pad_id: token id for padding.
        batch_tokens: most tokens, padding counted, in one forward pass (one rollout always goes in).
        cache_prompts: False reads the prompts again in every pass (for models whose cache cannot be shared).
        shape: of the masks, see `Entries`.

    Attributes:
        entries: the masks' trainable values.
        answer_lengths: `[B]` N of each rollout.
    """

    def __init__(
        self, model: Any, targets: Sequence[Target], scale: float, pad_id: int, batch_tokens: int,
        cache_prompts: bool = True, shape: masks.Shape = "full",
    ) -> None:  # fmt: skip
        self.model, self.targets, self.scale, self.pad_id = model, list(targets), scale, pad_id
        self.batch_tokens, self.cache_prompts = batch_tokens, cache_prompts
        self.device = next(model.parameters()).device
        self.rows = self._tensor([t.rows for t in targets])
        columns = self._tensor([t.cot for t in targets])
        self.answer_lengths = self._tensor([t.answer for t in targets])
        self.entries = masks.Entries(self.rows, columns, shape)
        self._tails = pad_sequence([self._tensor(t.tail) for t in targets], batch_first=True, padding_value=pad_id)
        place = torch.arange(self._tails.shape[1], device=self.device)[None]
        self._real = (place < self.rows[:, None]).long()
        answer_start = (self.rows - self.answer_lengths)[:, None]
        self._before = (place >= answer_start - 1) & (place < self.rows[:, None] - 1)
        self._is_answer = (place >= answer_start) & (place < self.rows[:, None])
        unique = sorted({t.prompt for t in targets}, key=len)
        self._prompt_of = self._tensor([unique.index(t.prompt) for t in targets])
        self._prompts, self._prompt_mask = left_padded(unique, pad_id, self.device)
        self._cache = self._read_prompts() if cache_prompts else None

    def evaluate(self, values: Tensor, rows: Tensor, gradient: bool = True) -> Evaluation:
        """Loss, and the gradient of each rollout's own loss in its own mask.

        Losses are summed, not averaged, over rollouts: a rollout's gradient does not depend on its company.

        Args:
            values: `[P]` the masks' values of the K rollouts `rows`, packed in their order.
            rows: `[K]` which rollouts.
            gradient: whether the gradient is wanted.

        Raises:
            ProbeError: the model ignores the bias, or its logits are not finite.
        """
        loss = torch.zeros(len(rows), device=self.device, dtype=values.dtype)
        logprobs = values.new_zeros(len(rows), int(self.answer_lengths.max()))
        grad = torch.zeros_like(values) if gradient else None
        packing = self.entries.packing.take(rows)
        for batch in cheapest_batches(self.rows[rows].tolist(), self.batch_tokens):
            chosen = self._tensor(batch)
            index = packing.index(chosen)
            part = values[index].detach().requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                scores = self._answer_logprobs(self.entries.dense(part, rows[chosen]), rows[chosen])
                losses = -scores.sum(1) / self.answer_lengths[rows[chosen]]
            if not torch.isfinite(losses).all():
                raise ProbeError(NOT_FINITE)
            if grad is not None:
                slope = torch.autograd.grad(losses.sum(), part, allow_unused=True)[0] if losses.requires_grad else None
                if slope is None:
                    raise ProbeError(f"{type(self.model).__name__} ignores the attention bias: it cannot be probed.")
                grad[index] = slope
            loss[chosen] = losses.detach().to(loss.dtype)
            logprobs[chosen, : scores.shape[1]] = scores.detach().to(logprobs.dtype)
        return Evaluation(loss, grad, logprobs)

    @torch.no_grad()
    def _read_prompts(self) -> Any:
        """Keys and values of every different prompt; None where rollouts cannot share them (see `can_share_cache`)."""
        cache = read_prompts(self.model, self._prompts, self._prompt_mask)
        return cache if can_share_cache(cache) else None

    def _answer_logprobs(self, mask: Tensor, rows: Tensor) -> Tensor:
        """Log-probabilities `[K, N]` of the answer tokens of the rollouts `rows` under their masks `[K, R, T]`."""
        # nothing follows the last token of the answer, so its row of the mask has no effect and is not computed
        width = int(self.rows[rows].max()) - 1
        tails, before, real = self._tails[rows, :width], self._before[rows, :width], self._real[rows, :width]
        prompts = self._prompt_of[rows]
        prompt_mask = self._prompt_mask[prompts]
        start = prompt_mask.shape[1]
        cache = None
        if self._cache is not None:
            cache = fork(self._cache, prompts)
        else:
            tails = torch.cat([self._prompts[prompts], tails], dim=1)
            before = torch.cat([torch.zeros_like(prompt_mask, dtype=torch.bool), before], dim=1)
        attention_mask = torch.cat([prompt_mask, real], dim=1)
        bias = Bias(self.scale * masks.effective(mask[:, :width]), row=start, column=start)
        with attention_bias(bias), constant_past():
            logits = logits_at(
                self.model, before, input_ids=tails, attention_mask=attention_mask,
                position_ids=positions(attention_mask)[:, -tails.shape[1] :], past_key_values=cache,
                use_cache=cache is not None,
            )  # fmt: skip
        answers = self._tails[rows][self._is_answer[rows]]
        count = self.answer_lengths[rows]
        answered = torch.arange(int(count.max()), device=self.device)[None] < count[:, None]
        scores = mask.new_zeros(answered.shape)
        return scores.masked_scatter(answered, token_logprobs(logits, answers).to(mask.dtype))

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.device)
