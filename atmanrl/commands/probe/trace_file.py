"""Which traces of a file can be probed. All are checked before the first one is probed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.probe.target import Target, target_of
from atmanrl.rollouts import Rollout, marking, traces
from atmanrl.rollouts.split import DEFAULT, Splitter
from atmanrl.rollouts.trace_rows import Fields, Reading
from atmanrl.rollouts.traces import TraceError

ORDER = ("prompt", "cot", "completion", "gold")
"""Of fields, where their places are told."""


@dataclass(frozen=True)
class StoredTrace:
    """A trace that can be probed.

    Attributes:
        line: of the file on which it stands, from 1.
        rollout: the trace as it is stored.
        target: what is probed of it.

    Example:
        `StoredTrace(line=3, rollout=Rollout(...), target=Target((1, 420), (17, 12, 18), (9,), (21,)))`
    """

    line: int
    rollout: Rollout
    target: Target


class NoSaliencyError(TraceError):
    """A rollout that has no saliency, as rewards know it: it has no delimiter, or no reasoning before it."""


class TraceFile:
    """The traces of a file.

    Args:
        path: the file.
        limit: read only the first so many traces.
        skip_bad_rows: leave out traces that cannot be probed; without it the first one is an error.
        splitter: of traces that name no delimiter; None recognises it.
        named: where rows keep their fields, as far as the user says it.

    Attributes:
        lines: numbers of the lines on which traces stand, bad ones included.
        skipped: line and reason of each bad trace, in the order of the lines.
        without_saliency: line and reason of each trace that is not bad, but has no saliency.
        splitter: of traces that name no delimiter.
        taken: what was taken for what, in a sentence; empty where there was nothing to find out.

    Raises:
        TraceError: the file cannot be read or holds no trace, or a trace is bad.
    """

    def __init__(
        self, path: Path, limit: int | None, skip_bad_rows: bool, splitter: Splitter | None, named: Fields = Fields(),  # noqa: B008  it is frozen
    ) -> None:  # fmt: skip
        self.path, self.skip_bad_rows = path, skip_bad_rows
        self.skipped: list[dict[str, Any]] = []
        self.without_saliency: list[dict[str, Any]] = []
        readings = list(traces.readings(path, limit, self._skip, splitter or DEFAULT, named))
        self._objects = [(line, reading.trace) for line, reading in readings]
        self.lines = sorted([line for line, _ in self._objects] + [bad["line"] for bad in self.skipped])
        self.total = len(self.lines)
        if not self.total:
            raise TraceError(f"{path} holds no trace.")
        kinds = _kinds([reading for _, reading in readings])
        if splitter is None:
            splitter, mark = _recognise([trace for _, trace in self._objects])
            if kinds and not mark and any("cot" in trace for _, trace in self._objects):
                mark = f'"{splitter.opening}" is put between cot and answer (--delimiter takes another)'
            kinds += [mark] if mark else []
        self.splitter = splitter
        self.taken = f"{path.name}: {'; '.join(kinds)}." if kinds else ""

    def probeable(self, policy: Policy, probe: MaskProbe) -> list[StoredTrace]:
        """Tokenize the traces, check what only their tokens show, and return those that can be probed.

        Args:
            policy: built.
            probe: decides what belongs to an answer.

        Raises:
            TraceError: a trace is bad, or all are.
        """
        probeable = []
        for index, (line, trace) in enumerate(self._objects):
            try:
                rollout = traces.from_json(trace, index, policy, "", self.splitter)
                probeable.append(StoredTrace(line, rollout, _target(trace, rollout, policy, probe)))
            except NoSaliencyError as error:
                self.without_saliency.append({"line": line, "reason": str(error)})
            except UserError as error:
                self._skip(line, str(error).removeprefix(": "))
        self.skipped.sort(key=lambda bad: bad["line"])
        if not probeable and not self.without_saliency:
            first = self.skipped[0]
            raise TraceError(
                f"none of the {self.total} traces of {self.path} can be probed; line {first['line']}: {first['reason']}"
            )
        return probeable

    def _skip(self, line: int, reason: str) -> None:
        if not self.skip_bad_rows:
            raise TraceError(
                f"{self.path}, line {line}: {reason} Mend the row, say where its fields stand by --fields "
                "(--fields.prompt=question), or leave such rows out by --skip_bad_rows."
            )
        self.skipped.append({"line": line, "reason": reason})


def _kinds(readings: list[Reading]) -> list[str]:
    """What rows were taken for that are no traces of ours, each kind with the places of its fields."""
    kinds = Counter((reading.kind, *reading.sources.items()) for reading in readings if reading.sources)
    taken = []
    for (kind, *sources), number in kinds.most_common():
        places = ", ".join(f"{key} -> {name}" for name, key in sorted(sources, key=lambda each: ORDER.index(each[0])))
        taken.append(f"{number} {'row' if number == 1 else 'rows'} taken for {kind} ({places})")
    return taken


def _recognise(objects: list[dict[str, Any]]) -> tuple[Splitter, str]:
    """The splitter of traces that name none, and what is to be said of it."""
    unmarked = [trace for trace in objects if trace.get("delimiter") is None and trace.get("completion_ids") is None]
    completions = [trace["completion"] for trace in unmarked if trace.get("completion") is not None]
    mark = marking.recognise(completions)
    if mark is not None and mark.splitter != DEFAULT:
        marked = f"in {mark.marked} of {mark.completions} completions"
        return mark.splitter, f'the answer follows "{mark.splitter.opening}" {marked} (--delimiter takes another)'
    if mark is None and completions:
        return DEFAULT, f"no mark of an answer is known in the completions ({len(completions)}): name it by --delimiter"
    return DEFAULT, ""


def _target(trace: dict[str, Any], rollout: Rollout, policy: Policy, probe: MaskProbe) -> Target:
    """Return what is probed of a trace, or raise a `UserError` with the reason why it cannot be."""
    complete = trace.get("completion_ids") is not None or trace.get("completion") is not None
    parts, gold = rollout.parts, rollout.problem.gold
    if not complete and parts.splitter.cuts(trace["cot"]):
        raise TraceError(f"field 'cot' holds the delimiter {parts.opening}; give such a text as 'completion'.")
    if parts.answer is None:
        raise NoSaliencyError(f"the completion has no delimiter {parts.opening}.")
    if not parts.has_reasoning:
        raise NoSaliencyError("the reasoning before the delimiter is empty.")
    ids = rollout.completion.ids
    target = target_of(policy.tokenizer, rollout.prompt_ids, ids, parts, gold, probe.eos_id(policy))
    target.check(policy)
    return target
