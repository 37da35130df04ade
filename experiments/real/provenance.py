"""What a reader needs to repeat figures: command, date, machine, versions."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def provenance(module: str, words: Sequence[str], threads: int | str, packages: Iterable[str]) -> dict[str, Any]:
    """Return the head of a file of results.

    Args:
        module: of `experiments.real`, that was called.
        words: its arguments.
        threads: of a process; `all` where nobody has said.
        packages: on which figures depend; the version of one that is not installed is None.
    """
    return {
        "command": shlex.join(["python", "-m", f"experiments.real.{module}", *words]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "device": f"{os.cpu_count()} cores, {platform.machine()}, {threads} thread(s)",
        "versions": {"python": platform.python_version(), **versions(packages)},
    }


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the versions of some packages, None where one is not installed."""
    known: dict[str, str | None] = dict.fromkeys(packages)
    for name in known:
        with suppress(PackageNotFoundError):
            known[name] = version(name)
    return known
