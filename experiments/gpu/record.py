"""What a step has measured, on disk after every figure, so that a fault or the clock takes nothing that was known."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atmanrl.io.files import atomic_write

TRACEBACK = 4000
"""Characters of a traceback that are kept, its end."""


class Record:
    """The figures of one step and what went wrong.

    Args:
        path: of its JSON file.
        seconds: that the step has.

    Attributes:
        figures: by name, JSON-ready.
        errors: tracebacks by the name of what failed.
        skipped: reasons by the name of what was not run.
        ended: whether the step came to its end.
    """

    def __init__(self, path: Path, seconds: float = 60.0) -> None:
        self.path, self.began, self.until = path, time.monotonic(), time.monotonic() + seconds
        self.metrics: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.ended = False

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.until - time.monotonic()

    def put(self, name: str, figure: Any) -> None:
        """Keep a figure."""
        self.metrics[name] = figure
        self._write()

    def skip(self, name: str, reason: str) -> None:
        """Keep why something was not run."""
        self.skipped[name] = reason
        self._write()

    def fail(self, name: str, text: str) -> None:
        """Keep what went wrong."""
        self.errors[name] = text[-TRACEBACK:]
        self._write()

    def end(self) -> None:
        """Note that all of the step has run."""
        self.ended = True
        self._write()

    @contextmanager
    def guarded(self, name: str) -> Iterator[dict[str, Any]]:
        """Run a block that fills in a dictionary of figures; its error is kept, and the step goes on."""
        figures: dict[str, Any] = {}
        try:
            yield figures
        except Exception:
            self.fail(name, traceback.format_exc())
        if figures:
            self.put(name, figures)

    def in_time(self, name: str, needs: float) -> bool:
        """Whether so many seconds are left; where they are not, that is kept as the reason."""
        if self.left < needs:
            self.skip(name, f"it takes about {needs:.0f} s, and {max(0.0, self.left):.0f} s were left")
        return self.left >= needs

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        seconds = round(time.monotonic() - self.began, 1)
        found = {"ended": self.ended, "seconds": seconds, "figures": self.metrics, "errors": self.errors}
        return found | {"skipped": self.skipped}

    def _write(self) -> None:
        with atomic_write(self.path) as file:
            file.write(json.dumps(self.as_dict(), indent=1) + "\n")
