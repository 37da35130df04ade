"""One trial: a run's folder, made by a command of its own, that a killed sweep can go on with."""

from __future__ import annotations

import csv
import ctypes
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field
from typing_extensions import TypedDict

from atmanrl.io import jsonl
from atmanrl.io.files import FileError, atomic_write, errors_name, remove
from atmanrl.io.folders import check_replaceable, locked, mark
from atmanrl.io.records import read_record
from atmanrl.sweep.space import Sweep

COMMAND = "sweep"
"""Whose mark the folders of a sweep and of its trials bear."""
_BEYOND = ""
"""The column of values beyond the last named one."""
_DIE = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def option(name: str, value: Any) -> str:
    """A parameter as an option; lists and mappings in YAML's flow style, which the command line reads back."""
    if isinstance(value, str):
        return f"--{name}={value}"
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 30).removesuffix("...\n").strip()
    return f"--{name}={text}"


def command_line(sweep: Sweep, parameters: dict[str, Any], more: Sequence[str]) -> list[str]:
    """The command of a trial with its macros replaced; `more` follows."""
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [str(sweep.program)],
        "${args}": [option(name, value) for name, value in parameters.items()],
    }
    return [word for part in sweep.command for word in macros.get(part, [part])] + list(more)


class Notes(TypedDict):
    """`trial.json`: a trial's parameters, the commands that are done, and the seconds that they took."""

    parameters: dict[str, Any]
    done: list[Literal["fit", "test"]]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Trial:
    """The commands of a trial, one after the other: `fit`, then `test`; any other command stands alone.

    `trial.json` in the folder says which of them are done, so that none is repeated.

    Args:
        folder: of the run.
        sweep: whose trial it is.
        parameters: of this trial.
        more: options that all trials are given.
        test: whether `test` follows `fit`.
    """

    def __init__(
        self, folder: Path, sweep: Sweep, parameters: dict[str, Any], more: Sequence[str], test: bool
    ) -> None:  # fmt: skip
        self.folder, self.parameters = folder, parameters
        self.command = command_line(sweep, parameters, [*more, f"--trainer.default_root_dir={folder}"])
        self.is_run = "fit" in self.command
        self.stages = ["fit", "test"] if self.is_run and test else ["fit"]
        self.notes: dict[str, Any] = {"parameters": parameters, "done": [], "seconds": 0.0}
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        if (folder / "trial.json").is_file():
            advice = f"restore it, or remove {folder} to begin this trial anew"
            self.notes |= read_record(folder / "trial.json", Notes, advice)

    @property
    def stage(self) -> str | None:
        """What is to be done next; None if all is done."""
        return next((stage for stage in self.stages if stage not in self.notes["done"]), None)

    def start(self) -> None:
        """Begin the next command.

        Raises:
            FileError: the trial's folder is not a sweep's, or a run is still at work there.
        """
        command = list(self.command)
        if self.stage == "test":
            command[command.index("fit")] = "test"
            command.append("--ckpt_path=last")
        elif self.is_run and any((self.folder / "checkpoints").glob("update_*.ckpt")):
            command.append("--ckpt_path=last")  # what was interrupted goes on from its checkpoint
        else:
            self._clear()
        mark(self.folder, COMMAND)
        self._write()
        path = self.folder / "trial.log"
        with errors_name(path), path.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.began = time.monotonic()

    def poll(self) -> int | None:
        """The exit status of the command that was begun, None while it runs; 0 is noted."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            self.notes["seconds"] += time.monotonic() - self.began
            if status == 0:
                self.notes["done"] = [*self.notes["done"], self.stage]
            self._write()
        return status

    def stop(self) -> None:
        """End the command, if one runs; the next sweep takes it up."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def error(self) -> str:
        """What the command said last."""
        lines = (self.folder / "trial.log").read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip() and not line.startswith("$ ")]
        named = [line for line in said if line.startswith("atmanrl: error: ")]
        status = self.process.returncode if self.process else None
        return (named or said or [f"exit status {status}"])[-1].removeprefix("atmanrl: error: ")

    def metrics(self) -> dict[str, float]:
        """The last value of every column of `metrics.csv` (NaN if none), and `test/...` from `eval/test.json`.

        Raises:
            FileError: one of the two is damaged.
        """
        advice = f"mend it, or remove {self.folder} to begin this trial anew"
        found: dict[str, float] = {}
        metrics, tested = self.folder / "metrics.csv", self.folder / "eval" / "test.json"
        if metrics.is_file():
            try:
                with metrics.open(newline="", encoding="utf-8") as file:
                    reader = csv.DictReader(file, restkey=_BEYOND)
                    found = dict.fromkeys(reader.fieldnames or [], math.nan)
                    for row in reader:
                        if _BEYOND in row:
                            raise FileError(f"{metrics}, line {reader.line_num}: more values than columns; {advice}.")
                        found |= {name: value for name, text in row.items() if (value := _number(text)) is not None}
            except (csv.Error, UnicodeDecodeError) as error:
                raise FileError(f"{metrics} is no CSV file that can be read ({error}); {advice}.") from error
        if tested.is_file():
            try:
                figures = jsonl.parse(tested.read_bytes())
            except jsonl.RowError as error:
                raise FileError(f"{tested} cannot be read: {str(error).removesuffix('.')}; {advice}.") from error
            found |= {f"test/{name}": float(value) for name, value in figures.items() if jsonl.is_number(value)}
        return found

    def _clear(self) -> None:
        """Empty the folder of a trial that begins anew."""
        check_replaceable(self.folder, COMMAND)
        if self.folder.exists():
            with locked(self.folder, "fit", patience=10.0):  # a killed sweep's trial may take a moment to end
                remove(self.folder)

    def _write(self) -> None:
        with atomic_write(self.folder / "trial.json") as file:
            file.write(json.dumps(self.notes, indent=2) + "\n")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _die_with_parent() -> None:
    """A trial must not outlive a sweep that is killed: its next run would write into the same folder."""
    if _LIBC is not None:
        _LIBC.prctl(_DIE, signal.SIGKILL)
