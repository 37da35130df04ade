"""Which traces of a file or a folder can be probed. All are checked before the first one is probed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io.row_files import RowFiles
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
        line: on which it stands, from 1; through all files of a folder.
        file: in which it stands, and on which of its lines, where the traces are a folder's; else empty.
        rollout: the trace as it is stored.
        target: what is probed of it.

    Example:
        `StoredTrace(line=3, file="", rollout=Rollout(...), target=Target((1, 420), (17, 12, 18), (9,), (21,)))`
    """

    line: int
    file: str
    rollout: Rollout
    target: Target


class NoSaliencyError(TraceError):
    """A rollout that has no saliency, as rewards know it: it has no delimiter, or no reasoning before it."""


class StoredTraces:
    """The traces of a file, or of the files of a folder.

    Args:
        path: of the file or the folder.
        limit: read only the first so many traces.
        skip_bad_rows: leave out traces that cannot be probed; without it the first one is an error.
        splitter: of traces that name no delimiter; None recognises it.
        named: where rows keep their fields, as far as the user says it.

    Attributes:
        files: the files.
        lines: numbers of the lines on which traces stand, bad ones included.
        skipped: line and reason of each bad trace, in the order of the lines.
        without_saliency: line and reason of each trace that is not bad, but has no saliency.
        splitter: of traces that name no delimiter.
        taken: what was taken for what, in a sentence; empty where there was nothing to find out.

    Raises:
        TraceError: there is no trace, or a trace is bad.
        UserError: a file cannot be read, or there is none.
    """

    def __init__(
        self, path: Path, limit: int | None, skip_bad_rows: bool, splitter: Splitter | None, named: Fields = Fields(),  # noqa: B008  it is frozen
    ) -> None:  # fmt: skip
        self.files, self.skip_bad_rows = RowFiles(path), skip_bad_rows
        self.skipped: list[dict[str, Any]] = []
        self.without_saliency: list[dict[str, Any]] = []
        readings = list(traces.readings(self.files, limit, self._skip, splitter or DEFAULT, named))
        self._objects = [(line, reading.trace) for line, reading in readings]
        self.lines = sorted([line for line, _ in self._objects] + [bad["line"] for bad in self.skipped])
        self.total = len(self.lines)
        if not self.total:
            raise TraceError(f"{path} holds no trace.")
        kinds = self._kinds(readings)
        if splitter is None:
            splitter, mark = _recognise([trace for _, trace in self._objects])
            if kinds and not mark and any("cot" in trace for _, trace in self._objects):
                mark = f'"{splitter.opening}" is put between cot and answer (--delimiter takes another)'
            kinds += [mark] if mark else []
        self.splitter = splitter
        if self.files.passed_over:
            kinds.append(f"passed over: {self.files.names(self.files.passed_over)}")
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
                probeable.append(
                    StoredTrace(line, self.files.place_within(line), rollout, _target(trace, rollout, policy, probe))
                )
            except NoSaliencyError as error:
                self.without_saliency.append({"line": line, "reason": self._named(line, str(error))})
            except UserError as error:
                self._skip(line, str(error).removeprefix(": "))
        self.skipped.sort(key=lambda bad: bad["line"])
        if not probeable and not self.without_saliency:
            first = self.skipped[0]
            raise TraceError(
                f"none of the {self.total} traces of {self.files.path} can be probed; line {first['line']}: "
                f"{first['reason']}"
            )
        return probeable

    def _skip(self, line: int, reason: str) -> None:
        if not self.skip_bad_rows:
            raise TraceError(
                f"{self.files.place(line)}: {reason} Mend the row, say where its fields stand by --fields "
                "(--fields.prompt=question), or leave such rows out by --skip_bad_rows."
            )
        self.skipped.append({"line": line, "reason": self._named(line, reason)})

    def _named(self, line: int, reason: str) -> str:
        """Return a reason with its place within a folder."""
        place = self.files.place_within(line)
        return f"{place}: {reason}" if place else reason

    def _kinds(self, readings: Sequence[tuple[int, Reading]]) -> list[str]:
        """Return what rows were taken for: of a file, where they are no traces of ours; of a folder, with the files."""
        rows: dict[tuple[str, tuple[tuple[str, str], ...]], list[int]] = {}
        for line, reading in readings:
            if reading.sources or self.files.path.is_dir():
                rows.setdefault((reading.kind, tuple(reading.sources.items())), []).append(line)
        taken = []
        for (kind, sources), lines in sorted(rows.items(), key=lambda each: -len(each[1])):
            places = ", ".join(f"{key} -> {name}" for name, key in sorted(sources, key=lambda at: ORDER.index(at[0])))
            files = self.files.names(dict.fromkeys(map(self.files.file_of, lines)))
            of = f" of {files}" if self.files.path.is_dir() else ""
            number = f"{len(lines)} {'row' if len(lines) == 1 else 'rows'}{of}"
            taken.append(f"{number} taken for {kind}{f' ({places})' if places else ''}")
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
