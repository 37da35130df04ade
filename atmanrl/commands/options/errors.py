"""Errors in options."""

from __future__ import annotations

from atmanrl.errors import UserError


class OptionError(UserError):
    """An option that cannot be, by its name or its type. The command ends with status 2."""
