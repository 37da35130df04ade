"""The probe's loss (Eq. 2) and its gradient in the mask, computed with as little work as an exact result allows.

The weights are frozen, so the backward pass goes to the mask only. The prompt cannot see the mask: its keys and values
are computed once and shared by all targets of a problem. Logits are computed only at the answer's positions. A forward
pass takes targets of about the same length, at most `batch_tokens` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from atmanrl.models.batching import cheapest_batches, pass_tokens, positions
from atmanrl.models.cache import can_share_cache, fork, read_prompts
from atmanrl.models.logits import logits_at
from atmanrl.models.numerics import widened
from atmanrl.models.token_scores import token_logprobs
from atmanrl.probe import mask as masks
from atmanrl.probe.attention import NOT_FINITE, Bias, ProbeError, attention_bias
from atmanrl.probe.lean import constant_past
from atmanrl.probe.target import Target
from atmanrl.pulse import beat
from atmanrl.rollouts.decoding import left_padded


@dataclass
class Evaluation:
    """The loss of K targets at given masks, and its gradient.

    Attributes:
        loss: `[K]` mean cross-entropy of the answer's tokens, in nats (Eq. 2).
        gradient: `[P]` of each target's own loss in the values of its mask, ragged.
        logprobs: `[K, N]` log-probability of each answer token, 0 on padding.

    Example:
        Of one target with a mask of three values and an answer of two tokens:
        `Evaluation(loss=tensor([1.2]), gradient=tensor([-0.3, 0.1, 0.0]), logprobs=tensor([[-0.7, -1.7]]))`
    """

    loss: Tensor
    gradient: Tensor
    logprobs: Tensor


class Objective:
    """The probe's loss as a function of masks, for any of B targets.

    Args:
        model: a Hugging Face causal language model, frozen, in eval mode and hooked (see `attention_hook`).
        targets: B of them.
        scale: of the bias, which is `scale * min(H, 0)`.
        pad_id: token id for padding.
        batch_tokens: most tokens, padding counted, in one forward pass (a single target is always let in).
        cache_prompts: False reads the prompts again in every pass (for models whose cache cannot be shared).
        shape: of the masks, see `Entries`.

    Attributes:
        entries: the masks' trainable values.
        indices: `[B]` of all targets.
        answer_lengths: `[B]` N of each target.
        pass_tokens: how many tokens a pass costs by itself.
        step: how far the solver is, for `pulse.beat`.
        steps: how far it goes; 0 where that is open.
    """

    def __init__(
        self, model: Any, targets: Sequence[Target], scale: float, pad_id: int, batch_tokens: int,
        cache_prompts: bool = True, shape: masks.Shape = "full",
    ) -> None:  # fmt: skip
        self.model, self.targets, self.scale, self.pad_id = model, list(targets), scale, pad_id
        self.batch_tokens, self.cache_prompts = batch_tokens, cache_prompts
        self.pass_tokens = pass_tokens(model)
        self.step = self.steps = 0
        self.device = next(model.parameters()).device
        self.indices = torch.arange(len(self.targets), device=self.device)
        self.entries = masks.Entries(
            self._tensor([t.rows for t in targets]), self._tensor([len(t.cot_ids) for t in targets]), shape
        )
        self.answer_lengths = self._tensor([len(t.answer_ids) for t in targets])
        self._tails = pad_sequence([self._tensor(t.tail) for t in targets], batch_first=True, padding_value=pad_id)
        place, ends = torch.arange(self._tails.shape[1], device=self.device)[None], self.entries.rows[:, None]
        self._real = (place < ends).long()
        answer_starts = ends - self.answer_lengths[:, None]
        self._before = (place >= answer_starts - 1) & (place < ends - 1)
        self._is_answer = (place >= answer_starts) & (place < ends)
        unique = sorted({t.prompt_ids for t in targets}, key=len)
        self._prompt_of = self._tensor([unique.index(t.prompt_ids) for t in targets])
        self._prompts, self._prompt_mask = left_padded(unique, pad_id, self.device)
        self._cache = self._read_prompts() if cache_prompts else None

    def filled(self, value: float) -> Tensor:
        """Return the values `[P]` of all masks with every entry at `value`: float32, or float64 for a float64 model."""
        dtype = widened(next(self.model.parameters()).dtype)
        return torch.full((self.entries.ragged.total,), value, dtype=dtype, device=self.device)

    def evaluate(self, values: Tensor, indices: Tensor | None = None) -> Evaluation:
        """Return loss, gradient and log-probabilities of some targets under their masks.

        Losses are summed, not averaged, over targets: the gradient of one does not depend on which others are evaluated.

        Args:
            values: `[P]` of the masks of the K targets, ragged, in their order.
            indices: `[K]` of the targets; None takes all of them.

        Raises:
            ProbeError: the model ignores the bias, or its logits are not finite.
        """
        return self._evaluate(values, self.indices if indices is None else indices, torch.zeros_like(values))

    def loss(self, values: Tensor, indices: Tensor | None = None) -> Tensor:
        """Return the loss `[K]` alone, which costs a third; see `evaluate`."""
        return self._evaluate(values, self.indices if indices is None else indices, None).loss

    def _evaluate(self, values: Tensor, indices: Tensor, gradient: Tensor | None) -> Evaluation:
        """Evaluate in batches, and write the gradient into `gradient [P]`, if there is one."""
        loss = torch.zeros(len(indices), device=self.device, dtype=values.dtype)
        logprobs = values.new_zeros(len(indices), int(self.answer_lengths.max()))
        ragged = self.entries.ragged.take(indices)
        for batch in cheapest_batches(self.entries.rows[indices].tolist(), self.batch_tokens, self.pass_tokens):
            beat("probing", self.step, self.steps)
            chosen = self._tensor(batch)
            where, some = ragged.positions(chosen), indices[chosen]
            part = values[where].detach().requires_grad_(gradient is not None)
            with torch.set_grad_enabled(gradient is not None):
                scores = self._answer_logprobs(self.entries.dense(part, some), some)
                losses = -scores.sum(1) / self.answer_lengths[some]
            if not torch.isfinite(losses).all():
                raise ProbeError(NOT_FINITE)
            if gradient is not None:
                slope = torch.autograd.grad(losses.sum(), part, allow_unused=True)[0] if losses.requires_grad else None
                if slope is None:
                    raise ProbeError(f"{type(self.model).__name__} ignores the attention bias: it cannot be probed.")
                gradient[where] = slope
            loss[chosen] = losses.detach().to(loss.dtype)
            logprobs[chosen, : scores.shape[1]] = scores.detach().to(logprobs.dtype)
        return Evaluation(loss, values.new_empty(0) if gradient is None else gradient, logprobs)

    @torch.no_grad()
    def _read_prompts(self) -> Any:
        """Return keys and values of every different prompt; None where they cannot be shared (see `can_share_cache`)."""
        cache = read_prompts(self.model, self._prompts, self._prompt_mask)
        return cache if can_share_cache(cache) else None

    def _answer_logprobs(self, mask: Tensor, indices: Tensor) -> Tensor:
        """Return log-probabilities `[K, N]` of the answer tokens of some targets under their masks `[K, R, T]`."""
        # nothing follows the last token of the answer, so its row of the mask has no effect and is not computed
        width = int(self.entries.rows[indices].max()) - 1
        tails, before, real = self._tails[indices, :width], self._before[indices, :width], self._real[indices, :width]
        prompts = self._prompt_of[indices]
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
        answers = self._tails[indices][self._is_answer[indices]]
        count = self.answer_lengths[indices]
        answered = torch.arange(int(count.max()), device=self.device)[None] < count[:, None]
        scores = mask.new_zeros(answered.shape)
        return scores.masked_scatter(answered, token_logprobs(logits, answers).to(mask.dtype))

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, device=self.device)
