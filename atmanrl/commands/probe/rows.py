"""Which rows of a file of traces can be probed. All are checked before the first one is probed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.probe.attention import ProbeError
from atmanrl.probe.target import target
from atmanrl.rollouts import Rollout, traces
from atmanrl.rollouts.split import Splitter
from atmanrl.rollouts.traces import TraceError


@dataclass(frozen=True)
class Row:
    """A trace that can be probed, and the line of the file on which it stands."""

    line: int
    rollout: Rollout


class NoSaliencyError(TraceError):
    """A rollout that has no saliency, as rewards know it: it never came to its delimiter, or thought nothing before it."""


class Rows:
    """The traces of a file.

    Args:
        path: the file.
        limit: read only the first so many traces.
        skip_bad_rows: leave out rows that cannot be probed; without it the first one is an error.
        splitter: of rows that name no delimiter.

    Attributes:
        lines: numbers of the lines on which traces stand, bad ones included.
        found: line numbers and objects of the traces whose form is right.
        skipped: line and reason of each bad row, in the order of the lines.
        without_saliency: line and reason of each rollout that is no bad row, but has no saliency.

    Raises:
        TraceError: the file cannot be read or holds no trace, or a row is bad.
    """

    def __init__(self, path: Path, limit: int | None, skip_bad_rows: bool, splitter: Splitter) -> None:
        self.path, self.skip_bad_rows, self.splitter = path, skip_bad_rows, splitter
        self.skipped: list[dict[str, Any]] = []
        self.without_saliency: list[dict[str, Any]] = []
        self.found = list(traces.read(path, limit, self._fault, splitter))
        self.lines = sorted([line for line, _ in self.found] + [bad["line"] for bad in self.skipped])
        self.total = len(self.lines)
        if not self.total:
            raise TraceError(f"{path} holds no trace.")

    def probeable(self, policy: Policy, probe: MaskProbe) -> list[Row]:
        """Tokenize the traces and check what only their tokens show; `policy` is built.

        Raises:
            TraceError: a row is bad, or all are.
        """
        rows = []
        for index, (line, trace) in enumerate(self.found):
            try:
                rollout = traces.from_json(trace, index, policy, "", self.splitter)
                _check(trace, rollout, policy, probe)
            except NoSaliencyError as error:
                self.without_saliency.append({"line": line, "reason": str(error)})
                continue
            except UserError as error:
                self._fault(line, str(error).removeprefix(": "))
                continue
            rows.append(Row(line, rollout))
        self.skipped.sort(key=lambda bad: bad["line"])
        if not rows and not self.without_saliency:
            first = self.skipped[0]
            raise TraceError(
                f"none of the {self.total} traces of {self.path} can be probed; line {first['line']}: {first['reason']}"
            )
        return rows

    def _fault(self, line: int, reason: str) -> None:
        if not self.skip_bad_rows:
            raise TraceError(
                f"{self.path}, line {line}: {reason} Mend the row, or leave such rows out by --skip_bad_rows."
            )
        self.skipped.append({"line": line, "reason": reason})


def _check(trace: dict[str, Any], rollout: Rollout, policy: Policy, probe: MaskProbe) -> None:
    """Raise a `UserError` with the reason why a rollout cannot be probed."""
    whole = trace.get("completion_ids") is not None or trace.get("completion") is not None
    parts = rollout.parts
    if not whole and parts.splitter.cuts(trace["cot"]):
        raise TraceError(f"field 'cot' holds the delimiter {parts.opening}; give such a text as 'completion'.")
    if parts.answer is None:
        raise NoSaliencyError(f"the completion has no delimiter {parts.opening}.")
    if not rollout.can_be_probed:
        raise NoSaliencyError("the reasoning before the delimiter is empty.")
    try:
        wanted = target(rollout, policy.tokenizer, policy.eos_ids[0] if probe.include_eos else None)
    except ProbeError as error:
        raise TraceError(f"the answer {rollout.problem.gold!r} has no token.") from error
    if excess := policy.excess(len(wanted.prompt) + wanted.rows):
        raise TraceError(f"{excess}.")
