"""The reference of the probe's benchmarks: the paper's loop as one would write it down first.

Whole sequences, padded together, through the whole model at every one of AdamW's 200 steps; logits of every position; one
dense mask `[B, R, T]`. Nothing is cached, batched by length or left out. Weights are frozen, which is kinder to it than
the usual `loss.backward()` with trainable ones. It shares the attention hook with the package and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.probe.attention import Bias, attention_bias, attention_hook
from atmanrl.probe.module import frozen
from atmanrl.probe.target import Target


@dataclass
class Naive:
    """What the loop found for B rollouts.

    Attributes:
        reward: `[B]` (Eq. 3, restored).
        saliency: B lists, one value for each reasoning token.
        loss_final: `[B]` at the last step's mask.
    """

    reward: Tensor
    saliency: list[list[float]]
    loss_final: Tensor


class Loop:
    """Left-padded sequences of some rollouts, their masks and their AdamW.

    Args:
        policy: built.
        targets: B rollouts.
        init_value: c.
        scale: of the bias.
    """

    def __init__(
        self, policy: Policy, targets: Sequence[Target], init_value: float = -0.4, scale: float = 10.0
    ) -> None:
        self.policy, self.targets, self.c, self.scale = policy, targets, init_value, scale
        device = policy.device
        width = max(len(t.prompt_ids) + t.rows for t in targets)
        columns, rows = max(len(t.cot_ids) for t in targets), max(t.rows for t in targets)
        self.ids = torch.full((len(targets), width), policy.pad_id, device=device)
        self.real, self.where = torch.zeros_like(self.ids), torch.zeros(len(targets), rows, columns, device=device)
        # sequences end together: row w of a mask of R rows stands at position width - R + w
        for k, t in enumerate(targets):
            sequence = torch.tensor((*t.prompt_ids, *t.tail), device=device)
            self.ids[k, -len(sequence) :], self.real[k, -len(sequence) :] = sequence, 1
            self.where[k, : t.rows, : len(t.cot_ids)] = torch.ones(t.rows, len(t.cot_ids), device=device).tril()
        dtype = torch.promote_types(next(policy.model.parameters()).dtype, torch.float32)
        self.mask = (self.where * init_value).to(dtype).requires_grad_()
        self.optimizer = torch.optim.AdamW([self.mask], lr=1e-3, betas=(0.6, 0.9999), weight_decay=0.05)

    def losses(self) -> Tensor:
        """Eq. 2 of each rollout, `[B]`."""
        width, biases = self.ids.shape[1], []
        for k, t in enumerate(self.targets):
            inner = self.scale * self.mask[k, : t.rows, : len(t.cot_ids)].clamp(max=0)
            after = t.rows - len(t.cot_ids)
            biases.append(torch.nn.functional.pad(inner, (width - t.rows, after, width - t.rows, 0)))
        with attention_bias(Bias(torch.stack(biases), row=0, column=0)):
            position = (self.real.cumsum(1) - 1).clamp(min=0)
            logits = self.policy.model(input_ids=self.ids, attention_mask=self.real, position_ids=position).logits
        scores = logits[:, :-1].log_softmax(-1).gather(-1, self.ids[:, 1:, None])[..., 0]
        return torch.stack([-scores[k, -len(t.answer_ids) :].mean() for k, t in enumerate(self.targets)])

    def step(self) -> Tensor:
        """One AdamW step; the losses before it."""
        self.optimizer.zero_grad()
        losses = self.losses()
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def result(self) -> Naive:
        """Reward, saliency and the last losses."""
        share = self.mask.detach().clamp(max=0) / self.c * self.where
        with torch.no_grad():
            final = self.losses()
        columns = 1 - share.sum(1) / self.where.sum(1).clamp(min=1)
        tokens = [row[: len(t.cot_ids)].tolist() for row, t in zip(columns, self.targets, strict=True)]
        return Naive(1 - share.sum((1, 2)) / self.where.sum((1, 2)), tokens, final)


def run(policy: Policy, targets: Sequence[Target], steps: int = 200, backend: str = "sdpa") -> Naive:
    """All steps."""
    with frozen(policy.model), attention_hook(policy.model, backend):
        loop = Loop(policy, targets)
        for _ in range(steps):
            loop.step()
        return loop.result()
