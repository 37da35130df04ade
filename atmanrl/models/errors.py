"""The error of everything that is wrong with a model or its tokenizer."""

from __future__ import annotations

from atmanrl.errors import UserError


class PolicyError(UserError):
    """A model or its tokenizer cannot be used; the message names the folder or the option and what to do."""
