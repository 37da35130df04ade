"""A short table of what the checklist has found, for a terminal or a log that keeps little."""

from __future__ import annotations

from typing import Any

MOST = 11_000
"""Characters of the whole table."""
CHARACTERS = 240
"""Longest line."""


def table(results: dict[str, Any]) -> str:
    """Each step with how it ended, its figures one a line, and the last line of each error."""
    lines = [results["command"], results["date"]]
    for name, step in results["steps"].items():
        lines.append(f"== {name}: {step['status']}, {step['seconds']} s")
        lines += [f"  {key}: {value}" for key, value in _flat(step["figures"]).items()]
        lines += [f"  FAILED {key}: {_last(text)}" for key, text in step["errors"].items()]
        if step["skipped"]:
            lines.append(
                f"  not run: {len(step['skipped'])}, such as {' ('.join(next(iter(step['skipped'].items())))})"
            )
        if step["status"] != "done" and not step["errors"]:
            lines += [f"  | {line}" for line in step["output"].splitlines()[-5:]]
    cut = [line if len(line) <= CHARACTERS else line[: CHARACTERS - 1] + "…" for line in lines]
    count = sum(sum(len(line) + 1 for line in cut[: k + 1]) <= MOST for k in range(len(cut)))
    return "\n".join(cut[:count] + ([f"... {len(cut) - count} more lines are in the JSON"] if count < len(cut) else []))


def _flat(figures: dict[str, Any]) -> dict[str, str]:
    """One line for each figure; what a figure is made of stands in its line."""
    return {name: _shown(value) for name, value in figures.items()}


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "predicted/measured" in value:
        return f"{_shown(value['measured'])} (plan {_shown(value['predicted'])})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
