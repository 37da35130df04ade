"""The folder of a probing run: results are appended batch by batch, and a killed run goes on after its last whole batch.

While a run is under way there are `progress.json` (settings, skipped rows, seconds) and `traces.part.jsonl`. The last act
of a run is to give the latter its final name, so a folder with `traces.jsonl` is finished, `summary.json` and
`index.html` included.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.files import written_aside

Json = dict[str, Any]

NAMES = {
    "traces_sha256": "the content of the traces file",
    "model_sha256": "the content of the model's folder",
}
"""Settings that the user did not type."""


class Folder:
    """A folder for results.

    Args:
        path: the folder.
        settings: all that the results depend on. Whoever goes on must have the same.

    Raises:
        UserError: the folder holds results of other settings, or files that no run of this command has left.
    """

    def __init__(self, path: Path, settings: Json) -> None:
        self.results, self.part = path / "traces.jsonl", path / "traces.part.jsonl"
        self.summary, self.page, self._progress = path / "summary.json", path / "index.html", path / "progress.json"
        self.settings = settings
        self.finished = self.results.exists()
        record = self.summary if self.finished else self._progress
        self.progress: Json | None = _object(record) if record.exists() else None
        if self.progress is None and (left := next((p for p in (self.results, self.part) if p.exists()), None)):
            raise UserError(
                f"{left} exists already, without the {record.name} of the run that wrote it; choose another --out."
            )
        if self.progress is not None:
            _same(self.progress.get("settings", {}), settings, path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from writing here; the lock goes with the process, however that ends.

        Raises:
            UserError: another process is at work.
        """
        self.page.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.page.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise UserError(f"another process is probing into {self.page.parent}.") from error
        try:
            yield
        finally:
            os.close(handle)

    def begin(self, skipped: list[Json], traces: int, device: str, dtype: str) -> None:
        """Note what a new run is about to do; a run that goes on keeps its note.

        Raises:
            UserError: the results so far were computed on another kind of device or in another dtype (which `auto` may
                choose on another machine).
        """
        if self.progress is None:
            self.progress = {
                "settings": self.settings, "traces": traces, "skipped": skipped, "device": device, "dtype": dtype,
                "seconds": 0.0,
            }  # fmt: skip
            self._note()
        now = {"device": device.split(":")[0], "dtype": dtype}
        for name, value in now.items():
            if (was := self.progress[name].split(":")[0]) != value:
                raise UserError(
                    f"the results in {self.page.parent} were computed with --{name}={was}, which would be {value} here: "
                    f"give --{name}={was}, or choose another --out."
                )

    def append(self, lines: Sequence[Json], seconds: float) -> None:
        """Add a batch of results; when this returns they are on the disk."""
        assert self.progress is not None
        with self.part.open("ab") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self.progress["seconds"] += seconds
        self._note()

    def rewind(self, size: int, total: int) -> int:
        """Cut off a batch that was not finished; returns how many of `total` results, in batches of `size`, are whole.

        A batch is probed as a whole or not at all: its composition decides the last digits of the results.
        """
        if not self.part.exists():
            return 0
        ends: list[int] = []
        with self.part.open("rb") as file:
            for line in file:
                if not (line.endswith(b"\n") and _is_object(line)) or len(ends) == total:
                    break
                ends.append(file.tell())
        done = len(ends) if len(ends) == total else len(ends) // size * size
        os.truncate(self.part, ends[done - 1] if done else 0)
        return done

    def done(self) -> Iterator[Json]:
        """The results so far, one by one; call `rewind` first."""
        with self.part.open("rb") as file:
            for line in file:
                yield json.loads(line)

    def finish(self, summary: Json, page: str) -> None:
        """Write summary and page, and give the results their final name."""
        with written_aside(self.page) as file:
            file.write(page)
        with written_aside(self.summary) as file:
            file.write(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        os.replace(self.part, self.results)
        self._progress.unlink(missing_ok=True)
        self.finished = True

    def _note(self) -> None:
        with written_aside(self._progress) as file:
            file.write(json.dumps(self.progress, indent=2, ensure_ascii=False) + "\n")


def content(path: Path) -> str:
    """SHA-256 of a file, or of the configuration, tokenizer and weights in a folder."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    kinds = {".json", ".jinja", ".model", ".txt", ".safetensors", ".bin", ".py"}
    for each in sorted(p for p in path.iterdir() if p.is_file() and p.suffix in kinds):
        digest.update(f"{each.name} {content(each)}\n".encode())
    return digest.hexdigest()


def _same(was: Json, now: Json, path: Path) -> None:
    before, after = dict(_flat(was)), dict(_flat(now))
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


def _object(path: Path) -> Json:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; choose another --out.") from error
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise UserError(f"{path} was not written by `atmanrl probe`; choose another --out.")
    return found


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
