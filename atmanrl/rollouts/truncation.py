"""Truncated sampling: which tokens may be drawn at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.rollouts.seeds import cumulated


@dataclass(frozen=True)
class Truncation:
    """Top-k, top-p and min-p with the meaning and in the order that they have in Hugging Face's `generate`.

    Written out rather than taken from there, because ties at the edge must fall the same way in every batch: the tokens
    of a rollout depend on nothing but their seeds.

    Attributes:
        top_k: only the k likeliest tokens, and those as likely as the last of them; 0 takes all.
        top_p: the likeliest tokens that together have this probability, the one that reaches it included; 1 takes all.
        min_p: only tokens with at least this part of the likeliest token's probability; None takes all.

    Raises:
        UserError: a value outside of its range; the option is named.

    Example:
        `Truncation(top_k=50, top_p=0.95)`
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float | None = None

    def __post_init__(self) -> None:
        """Refuse values outside of their range."""
        if self.top_k < 0:
            raise UserError(f"data.top_k is {self.top_k}; give at least 1, or 0 to take all tokens.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"data.top_p is {self.top_p}; give a number above 0 and up to 1, which takes all tokens.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise UserError(f"data.min_p is {self.min_p}; give a number from 0 to 1, or null.")

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits `[B, V]` at the sampling temperature with -inf where a token may not be drawn."""
        if 0 < self.top_k < logits.shape[-1]:
            lowest = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < lowest, -torch.inf)
        if self.top_p < 1:
            ranked, order = logits.sort(dim=-1, stable=True)
            small = cumulated(ranked.softmax(-1)).float() <= 1 - self.top_p
            small[:, -1] = False
            logits = logits.masked_fill(torch.zeros_like(small).scatter(1, order, small), -torch.inf)
        if self.min_p is not None:
            probabilities = logits.softmax(-1)
            small = probabilities < self.min_p * probabilities.amax(-1, keepdim=True)
            logits = logits.masked_fill(small, -torch.inf)
        return logits


ALL_TOKENS = Truncation()
"""Every token may be drawn."""
