"""How the experiments' pictures look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib import rc_context


@contextmanager
def style(**settings: Any) -> Iterator[None]:
    """Draw in the experiments' style, with more of matplotlib's settings by name, and leave the process as it was."""
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, **settings}):  # type: ignore[dict-item]
        yield
