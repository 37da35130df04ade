"""Errors in options."""

from __future__ import annotations

from atmanrl.commands.options import OPTIONS_ARE
from atmanrl.errors import UserError


class OptionError(UserError):
    """An option that cannot be, by its name or its type. The command ends with status 2.

    Args:
        message: a sentence.
        advice: what stands below it.
    """

    def __init__(self, message: str, advice: str = OPTIONS_ARE) -> None:
        super().__init__(message)
        self.advice = advice
