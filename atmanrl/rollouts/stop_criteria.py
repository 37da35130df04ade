"""Where a completion ends: at an end-of-sequence token, or where its text completes a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rollouts.offsets import decode

MARGIN = 8
"""Tokens that are decoded before those of a stop string: a text's first tokens may read otherwise than within a text."""


class StopCriteria:
    """Tells which completions end, and with which token.

    Stop strings are looked for in the decoded text, wherever tokens begin and end. No more tokens are decoded than a stop
    string can reach over: every token of a text has at least one of its bytes.

    Args:
        policy: for its tokenizer and its end-of-sequence tokens.
        stop: stop strings.
    """

    def __init__(self, policy: Policy, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = policy.tokenizer, tuple(stop)
        self.eos_ids = frozenset(policy.eos_ids)
        self.eos = torch.tensor(policy.eos_ids, device=policy.device)
        self.window = MARGIN + max((len(string.encode()) for string in stop), default=0)

    def __call__(self, tokens: Tensor, active: Tensor, t: int) -> Tensor:
        """Return whether each active row ends with its token in column t, boolean `[A]`.

        Args:
            tokens: `[B, T]`, known up to and with column t.
            active: `[A]` the rows that still go on.
            t: the column that was drawn last.
        """
        over = torch.isin(tokens[active, t], self.eos)
        if self.stop:
            last = tokens[active, max(0, t + 1 - self.window) : t + 1].tolist()
            over |= torch.tensor([self._stops(ids) for ids in last], device=over.device)
        return over

    def first_end(self, ids: Sequence[int], begin: int) -> int | None:
        """Return the first column from `begin` on at which the completion `ids` ends; None where it goes on."""
        for t in range(begin, len(ids)):
            if ids[t] in self.eos_ids or (self.stop and self._stops(ids[max(0, t + 1 - self.window) : t + 1])):
                return t
        return None

    def _stops(self, last: Sequence[int]) -> bool:
        """Whether the text of a completion's last tokens holds a stop string."""
        text = decode(self.tokenizer, last)
        return any(string in text for string in self.stop)
