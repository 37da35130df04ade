"""The files of rows that a path names: the file itself, or those of a folder. No torch here."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

from atmanrl.errors import UserError
from atmanrl.io import rows
from atmanrl.io.folders import is_marked
from atmanrl.io.jsonl import Line

LOGS = ("samples_*.jsonl", "samples_*.jsonl.gz", "completions_*.parquet")
"""Names by which lm-eval's samples and TRL's completions are known, among whatever else their folders hold."""

ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
"""Of files that may hold rows; those of JSON may be compressed (`.gz`)."""

DEEPEST = 3
"""Folders within folders that are looked into."""

NAMED = 4
"""Most files that a sentence names."""


class RowFiles:
    """The rows of a file, or of the files of a folder, one after the other.

    Of a folder those files are taken that lm-eval or TRL have named, wherever they lie in it; without any, those in the
    folder itself that hold rows; without any, those in the folders within it. Hidden files and folders, and what
    `atmanrl probe` has written into folders of their own, are passed over.

    Args:
        path: a file of any name, or a folder.

    Attributes:
        files: in the order of their names.
        passed_over: files that end as files of rows do, beside those that are taken.

    Raises:
        UserError: there is no such file, or no file of the folder holds rows.

    Example:
        `RowFiles(Path("lm_eval_output")).files` is `(Path("lm_eval_output/my__model/samples_gsm8k_2026-11-27.jsonl"),)`
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: tuple[Path, ...] = (path,)
        self.passed_over: tuple[Path, ...] = ()
        self._ends: list[int] = []
        if path.is_dir():
            self.files, self.passed_over = _of_folder(path)
        elif not path.is_file():
            kind = "it is no file" if path.exists() else "there is no such file"
            raise UserError(f"the traces {path} cannot be read: {kind}.")

    def read(self) -> Iterator[Line]:
        """Yield the rows of all files as `rows.read` does; their numbers run on from one file to the next.

        Raises:
            UserError: a file is none that can be read.
            OSError: a file cannot be read.
        """
        self._ends = []
        for file in self.files:
            before = last = self._ends[-1] if self._ends else 0
            self._ends.append(before)
            for line in rows.read(file):
                last = self._ends[-1] = before + line.number
                yield line if not before else replace(line, number=last)

    def file_of(self, number: int) -> Path:
        """Return the file of a row that `read` has yielded."""
        return self.files[bisect_left(self._ends, number)]

    def place(self, number: int) -> str:
        """Return where a row that `read` has yielded stands: `traces/b.jsonl, line 3`."""
        return f"{self.file_of(number)}, line {self._line(number)}"

    def place_within(self, number: int) -> str:
        """Return where such a row stands in the folder: `b.jsonl, line 3`; empty where the path is a file's."""
        file = self.file_of(number)
        return "" if file == self.path else f"{file.relative_to(self.path)}, line {self._line(number)}"

    def _line(self, number: int) -> int:
        index = bisect_left(self._ends, number)
        return number - (self._ends[index - 1] if index else 0)

    def names(self, files: Iterable[Path] | None = None) -> str:
        """Return how a sentence names files, by default all that are taken: `a.jsonl, b.jsonl and 3 more`."""
        paths = self.files if files is None else tuple(files)
        names = [str(each.relative_to(self.path)) if each != self.path else each.name for each in paths]
        more = len(names) - NAMED
        return ", ".join(names) if more <= 0 else f"{', '.join(names[:NAMED])} and {more} more"


def _of_folder(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files of a folder that are taken, and those beside them that are not."""
    levels = list(_levels(folder))
    logs = [file for level in levels for file in level if any(fnmatch(file.name, name) for name in LOGS)]
    taken = logs or next(filter(None, ([file for file in level if _holds_rows(file)] for level in levels)), [])
    if not taken:
        files = sorted(each.name for each in folder.iterdir())
        held = f"{', '.join(files[:NAMED])}{' ...' if len(files) > NAMED else ''}" if files else "nothing"
        raise UserError(
            f"the traces {folder} cannot be read: the folder holds no file of rows that can be read ({held}); give JSON "
            "lines or an array (.jsonl, .json, also .gz), Parquet, or the folder of a data set that was saved to disk."
        )
    folders = {file.parent for file in taken}
    beside = [file for level in levels for file in level if file.parent in folders and file not in taken]
    return tuple(taken), tuple(file for file in beside if _ending(file))


def _levels(folder: Path) -> Iterator[list[Path]]:
    """The files of a folder, then those of the folders in it, and so on; sorted."""
    level: Sequence[Path] = [folder]
    for _ in range(DEEPEST + 1):
        entries = sorted(each for parent in level for each in parent.iterdir() if not each.name.startswith("."))
        yield [each for each in entries if each.is_file()]
        level = [each for each in entries if each.is_dir() and not is_marked(each, "probe")]


def _ending(file: Path) -> str:
    """How a file of rows ends, without `.gz`; empty where it ends otherwise."""
    ending = Path(file.name.removesuffix(".gz")).suffix
    return ending if ending in ENDINGS else ""


def _holds_rows(file: Path) -> bool:
    """Whether a file's name says so, or, where its name does not tell, its beginning: settings are `.json`, too."""
    if _ending(file) != ".json":
        return bool(_ending(file))
    try:
        return not rows.holds_object(file)
    except (OSError, EOFError, zlib.error):
        return True  # the fault is for the reader to name
