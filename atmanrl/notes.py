"""What the package has to say while it works."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only

from atmanrl.io.terminal import say_note


@rank_zero_only
def say(line: str) -> None:
    """A note to whoever watches the run."""
    say_note(line)
