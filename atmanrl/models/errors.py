"""The error of everything that is wrong with a model or its tokenizer."""

from __future__ import annotations

from atmanrl.errors import UserError

UNSAFE = "it holds more than tensors and plain values, or is damaged; what could run code is never loaded."
"""Of a file that `torch.load(weights_only=True)` refuses, whose own message is a page on how to load it all the same."""


class PolicyError(UserError):
    """A model or its tokenizer cannot be used; the message names the folder or the option and what to do."""
