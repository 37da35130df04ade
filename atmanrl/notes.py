"""What the package has to say while it works."""

from __future__ import annotations

import sys

from lightning.pytorch.utilities import rank_zero_only


@rank_zero_only
def say(line: str) -> None:
    """A note to whoever watches the run."""
    print(f"atmanrl: note: {line}", file=sys.stderr, flush=True)
