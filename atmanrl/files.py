"""Writing files so that no reader ever sees half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def written_aside(path: Path) -> Iterator[TextIO]:
    """A text file beside `path` that takes its place when the block ends; if the block raises, `path` stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
