"""The folder of a probing run: results are appended batch by batch, and a killed run continues after its last full batch.

During a run there are `progress.json` (settings, skipped traces, seconds) and `traces.part.jsonl`. A run ends by giving the
latter its final name, so a folder with `traces.jsonl` is finished, and has `summary.json` and `index.html` too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write, errors_name
from atmanrl.io.folders import check_fillable, mark
from atmanrl.io.records import read_record

Json = dict[str, Any]
Count = Annotated[int, Field(ge=0)]

COMMAND = "probe"
"""The command whose mark and lock the folder has."""

NAMES = {
    "traces_sha256": "the content of the traces file",
    "model_sha256": "the content of the model's folder",
}
"""Settings that the user did not type."""


class Skipped(TypedDict):
    """A trace that was not probed, and why.

    Example:
        `{"line": 7, "reason": "the completion has no delimiter #####."}`
    """

    line: int
    reason: str


class Progress(TypedDict):
    """`progress.json`: what the results of an unfinished run depend on, and how far it has come.

    Example:
        `{"settings": {"batch_size": 64, ...}, "traces": 500, "skipped": [], "without_saliency": [], "device": "cpu",
        "dtype": "float32", "seconds": 81.3}`
    """

    settings: Json
    traces: Count
    skipped: list[Skipped]
    without_saliency: list[Skipped]
    device: str
    dtype: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Spread(TypedDict):
    """Mean and sample standard deviation, None where there are too few values: `{"mean": 0.094, "std": 0.031}`."""

    mean: FiniteFloat | None
    std: FiniteFloat | None


class Check(TypedDict):
    """Agreement with the paper's solver, see `probe.reference_check.ReferenceCheck`; None for what is not known.

    Example:
        `{"traces": 8, "within_groups": False, "pearson": 0.998, "pearson_low": 0.987, "pearson_high": 0.9997, "slope": 0.99,
        "largest_difference": 0.002, "token_spearman": 0.997, "token_spearman_least": 0.99, "sentence": "8 traces ..."}`
    """

    traces: Count
    within_groups: bool
    pearson: FiniteFloat | None
    pearson_low: FiniteFloat | None
    pearson_high: FiniteFloat | None
    slope: FiniteFloat | None
    largest_difference: FiniteFloat | None
    token_spearman: FiniteFloat | None
    token_spearman_least: FiniteFloat | None
    sentence: str


class Summary(Progress):
    """`summary.json`: the results of a finished run.

    Example:
        `{"probed": 499, "saliency": {"mean": 0.094, "std": 0.031}, ...}`, and the fields of `Progress`.
    """

    probed: Count
    saliency: Spread
    check: NotRequired[Check]


class Folder:
    """A folder for results.

    Args:
        path: the folder.
        settings: all that the results depend on. A run that continues another must have the same.
        defaults: values of settings that the results of an earlier version may lack.

    Raises:
        UserError: the folder holds results of other settings, files that no run of this command has left, or files that
            were changed since so that they cannot be used.
    """

    def __init__(self, path: Path, settings: Json, defaults: Json | None = None) -> None:
        self.path, self.settings = path, settings
        self.results, self.part = path / "traces.jsonl", path / "traces.part.jsonl"
        self.summary, self.page, self._progress = path / "summary.json", path / "index.html", path / "progress.json"
        names = (each.name for each in (self.results, self.part, self.summary, self.page, self._progress))
        check_fillable(path, COMMAND, names)
        self.finished = self.results.exists()
        record, schema = (self.summary, Summary) if self.finished else (self._progress, Progress)
        advice = "choose another --out"
        self.progress: Json | None = dict(read_record(record, schema, advice)) if record.exists() else None
        if self.progress is None and (left := next((p for p in (self.results, self.part) if p.exists()), None)):
            raise UserError(f"{left} exists already, without the {record.name} of the run that wrote it; {advice}.")
        if self.progress is not None:
            _check_same(self.progress["settings"], settings, defaults or {}, path)

    def begin(self, skipped: list[Json], without_saliency: list[Json], traces: int, device: str, dtype: str) -> None:
        """Record what a new run is about to do; a run that continues another keeps the record.

        Args:
            skipped: bad traces with their reasons.
            without_saliency: traces that have none, with their reasons.
            traces: number of traces in the file.
            device: what the probe runs on.
            dtype: of the weights.

        Raises:
            UserError: the record was changed since, or the results so far were computed on another kind of device or in
                another dtype (which `auto` may choose on another machine).
        """
        if self.progress is None:
            self.progress = {
                "settings": self.settings, "traces": traces, "skipped": skipped,
                "without_saliency": without_saliency, "device": device, "dtype": dtype, "seconds": 0.0,
            }  # fmt: skip
            mark(self.path, COMMAND)
            _write(self._progress, self.progress)
        for name, rows in {"skipped": skipped, "without_saliency": without_saliency}.items():
            self.check(name, rows)
        now = {"device": device.split(":")[0], "dtype": dtype}
        for name, value in now.items():
            if (was := self.progress[name].split(":")[0]) != value:
                raise UserError(
                    f"the results in {self.page.parent} were computed with --{name}={was}, which would be {value} here: "
                    f"give --{name}={was}, or choose another --out."
                )

    def check(self, name: str, now: int | list[Json]) -> None:
        """Compare a field of the record with the traces: a number, or traces that are not probed, by their lines.

        Raises:
            UserError: the record was changed since.
        """
        assert self.progress is not None
        was = self.progress[name]
        if was != now if isinstance(now, int) else [r["line"] for r in was] != [r["line"] for r in now]:
            raise UserError(f"{self._progress}: field {name} does not fit the traces; choose another --out.")

    def append(self, lines: Sequence[Json], seconds: float) -> None:
        """Append a batch of results; when this returns, they are on the disk."""
        assert self.progress is not None
        with errors_name(self.part), self.part.open("ab") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self.progress["seconds"] += seconds
        _write(self._progress, self.progress)

    def valid(self, size: int, lines: Sequence[int]) -> int:
        """Return how many results, in full batches of `size`, are valid.

        A batch is probed as a whole or not at all: its composition decides the last digits of the results. A result that
        is damaged or out of order does not count, nor do any after it.

        Args:
            size: of a batch.
            lines: lines of the traces file, one for each result to come, in order.
        """
        return len(self._ends(size, lines))

    def rewind(self, size: int, lines: Sequence[int]) -> int:
        """Cut off what `valid` does not count; return what it counts."""
        ends = self._ends(size, lines)
        if self.part.exists():
            os.truncate(self.part, ends[-1] if ends else 0)
        return len(ends)

    def _ends(self, size: int, lines: Sequence[int]) -> list[int]:
        """Return the bytes at which valid results end."""
        ends: list[int] = []
        if self.part.exists():
            with self.part.open("rb") as file:
                for text in file:
                    if lines[len(ends) : len(ends) + 1] != [_line(text)]:
                        break
                    ends.append(file.tell())
        return ends if len(ends) == len(lines) else ends[: len(ends) // size * size]

    def done(self) -> Iterator[Json]:
        """Yield the results so far; call `rewind` first."""
        with self.part.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def finish(self, summary: Json, page: str) -> None:
        """Write summary and page, and give the results their final name."""
        with atomic_write(self.page) as file:
            file.write(page)
        _write(self.summary, summary)
        os.replace(self.part, self.results)
        self._progress.unlink(missing_ok=True)
        self.finished = True


def _write(path: Path, record: Json) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def content(path: Path, *more: Path) -> str:
    """Return the SHA-256 of a file, of several, or of the configuration, tokenizer and weights in a folder."""
    if more:
        return hashlib.sha256(" ".join(map(content, (path, *more))).encode()).hexdigest()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    kinds = {".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".py"}
    for each in sorted(p for p in path.iterdir() if p.is_file() and p.suffix in kinds):
        digest.update(f"{each.name} {content(each)}\n".encode())
    return digest.hexdigest()


def _check_same(was: Json, now: Json, defaults: Json, path: Path) -> None:
    before, after = dict(_flat(was)), dict(_flat(now))
    for name, value in _flat(defaults):
        # a class with its options is no lack of a name, which may stand in its place
        if name in after and not any(each.startswith(f"{name}.") for each in before):
            before.setdefault(name, value)
    ignored = {"traces"} | ({"model"} if after.get("model_sha256") else set())  # a file may move; its content counts
    for name in sorted((before.keys() | after.keys()) - ignored):
        if before.get(name) != after.get(name):
            change = (
                f"{NAMES[name]} has changed since ({name})"
                if name in NAMES
                else f"--{name} was {before.get(name)!r} there and is {after.get(name)!r} here"
            )
            raise UserError(
                f"{path} holds results of other settings: {change}. Take the same, or choose another --out."
            )


def _flat(settings: Json, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _line(text: bytes) -> int:
    """Return the line of the traces file that a result belongs to; 0 where the text is no complete result."""
    try:
        result = json.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return 0
    line = result.get("line") if isinstance(result, dict) else None
    return line if type(line) is int else 0
