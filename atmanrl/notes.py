"""What the package has to say while it works."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only

from atmanrl.io.terminal import say_note


@rank_zero_only
def say(line: str) -> None:
    """Print a note for whoever watches the run, from one of its processes."""
    say_note(line)
