"""Where a completion ends: at an end-of-sequence token, or where its text completes a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from atmanrl.policy import Policy
from atmanrl.rollouts.offsets import decode

MARGIN = 8
"""Tokens that are decoded before those of a stop string: a text's first tokens may read otherwise than within a text."""


class Ends:
    """Tells which completions end with the token that was just drawn.

    Stop strings are looked for in the decoded text, wherever tokens begin and end. No more tokens are decoded than a stop
    string can reach over: every token of a text has at least one of its bytes.

    Args:
        policy: for its tokenizer and its end-of-sequence tokens.
        stop: stop strings.
    """

    def __init__(self, policy: Policy, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = policy.tokenizer, tuple(stop)
        self.eos = torch.tensor(policy.eos_ids, device=policy.device)
        self.window = MARGIN + max((len(string.encode()) for string in stop), default=0)

    def __call__(self, tokens: Tensor, active: Tensor, t: int) -> Tensor:
        """Boolean, one for each active row.

        Args:
            tokens: `[B, T]`, known up to and with column t.
            active: `[A]` the rows that still go on.
            t: the column that was drawn last.
        """
        over = torch.isin(tokens[active, t], self.eos)
        if self.stop:
            last = tokens[active, max(0, t + 1 - self.window) : t + 1].tolist()
            texts = (decode(self.tokenizer, ids) for ids in last)
            found = [any(string in text for string in self.stop) for text in texts]
            over |= torch.tensor(found, device=over.device)
        return over
