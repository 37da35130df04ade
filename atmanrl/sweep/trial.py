"""One trial: a run's folder, filled by a command of its own, that a killed sweep can go on with."""

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

from atmanrl.cores import shared_environment
from atmanrl.io import jsonl
from atmanrl.io.files import FileError, atomic_write, errors_name, remove
from atmanrl.io.folders import check_replaceable, locked, mark
from atmanrl.io.records import read_record
from atmanrl.sweep.space import Sweep

COMMAND = "sweep"
"""Whose mark the folders of a sweep and of its trials bear."""
ERROR = "atmanrl: error: "
_BEYOND = ""
"""The column of values beyond the last named one."""
_DIE = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def option(name: str, value: Any) -> str:
    """Write a parameter as an option; lists and mappings in YAML's flow style, which the command line reads back."""
    if isinstance(value, str):
        return f"--{name}={value}"
    text = yaml.safe_dump(value, default_flow_style=True, width=1 << 30).removesuffix("...\n").strip()
    return f"--{name}={text}"


def command_line(sweep: Sweep, parameters: dict[str, Any], more: Sequence[str]) -> list[str]:
    """Return the command of a trial with its macros replaced, followed by `more`."""
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [str(sweep.program)],
        "${args}": [option(name, value) for name, value in parameters.items()],
    }
    return [word for part in sweep.command for word in macros.get(part, [part])] + list(more)


class Notes(TypedDict):
    """`trial.json`: a trial's parameters, the commands that are done, and the seconds that they took.

    Example:
        `{"parameters": {"model.rewards.saliency.weight": 10.0}, "done": ["fit"], "seconds": 61.2}`
    """

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
        more: options of all trials.
        test: whether `test` follows `fit`.
        jobs: trials at a time, which share the cores.

    Raises:
        RecordError: `trial.json` is damaged.
        FileError: the folder holds a trial of other parameters.
    """

    def __init__(
        self, folder: Path, sweep: Sweep, parameters: dict[str, Any], more: Sequence[str], test: bool, jobs: int = 1
    ) -> None:  # fmt: skip
        self.folder, self.parameters, self.jobs = folder, parameters, jobs
        self.command = command_line(sweep, parameters, [*more, f"--trainer.default_root_dir={folder}"])
        self.is_run = "fit" in self.command
        self.stages = ["fit", "test"] if self.is_run and test else ["fit"]
        self.notes: dict[str, Any] = {"parameters": parameters, "done": [], "seconds": 0.0}
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        if (folder / "trial.json").is_file():
            advice = f"restore it, or remove {folder} to begin this trial anew"
            self.notes |= read_record(folder / "trial.json", Notes, advice)
            before, now = (json.dumps(each, sort_keys=True) for each in (self.notes["parameters"], parameters))
            if before != now:  # as texts, where not-a-number equals itself
                raise FileError(
                    f"{folder} holds a trial of other parameters, {before}; move it away, or choose another --out."
                )

    @property
    def stage(self) -> str | None:
        """The next command; None if all are done."""
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
                env=shared_environment(self.jobs), preexec_fn=_die_with_parent,
            )  # fmt: skip
        self.began = time.monotonic()

    def poll(self) -> int | None:
        """Return the exit status of the running command, None until it ends; note a 0."""
        assert self.process is not None
        status = self.process.poll()
        if status is not None:
            self.notes["seconds"] += time.monotonic() - self.began
            if status == 0:
                self.notes["done"] = [*self.notes["done"], self.stage]
            self._write()
        return status

    def stop(self) -> None:
        """End the command, if one runs; the next sweep goes on with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def error(self) -> str:
        """Return the error that the command ended with."""
        log = (self.folder / "trial.log").read_text(encoding="utf-8", errors="replace")
        return error_in(log, self.process.returncode if self.process else None)

    def metrics(self) -> dict[str, float]:
        """Return the last value of every column of `metrics.csv` (NaN if none), and `test/...` from `eval/test.json`.

        Raises:
            FileError: one of the two is damaged.
        """
        advice = f"mend it, or remove {self.folder} to begin this trial anew"
        values: dict[str, float] = {}
        metrics, tested = self.folder / "metrics.csv", self.folder / "eval" / "test.json"
        if metrics.is_file():
            try:
                with metrics.open(newline="", encoding="utf-8") as file:
                    reader = csv.DictReader(file, restkey=_BEYOND)
                    values = dict.fromkeys(reader.fieldnames or [], math.nan)
                    for row in reader:
                        if _BEYOND in row:
                            raise FileError(f"{metrics}, line {reader.line_num}: more values than columns; {advice}.")
                        values |= {name: value for name, text in row.items() if (value := _number(text)) is not None}
            except (csv.Error, UnicodeDecodeError) as error:
                raise FileError(f"{metrics} is no CSV file that can be read ({error}); {advice}.") from error
        if tested.is_file():
            try:
                scores = jsonl.parse(tested.read_bytes())
            except jsonl.RowError as error:
                raise FileError(f"{tested} cannot be read: {str(error).removesuffix('.')}; {advice}.") from error
            values |= {f"test/{name}": float(value) for name, value in scores.items() if jsonl.is_number(value)}
        return values

    def _clear(self) -> None:
        """Empty the folder of a trial that begins anew."""
        check_replaceable(self.folder, COMMAND)
        if self.folder.exists():
            with locked(self.folder, "fit", patience=10.0):  # a killed sweep's trial may take a moment to end
                remove(self.folder)

    def _write(self) -> None:
        with atomic_write(self.folder / "trial.json") as file:
            file.write(json.dumps(self.notes, indent=2) + "\n")


def error_in(output: str, status: int | None) -> str:
    """Return the last error of a command, or the last line that it printed, or its exit status if it printed none."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("$ ")]
    errors = [line for line in lines if line.startswith(ERROR)]
    return (errors or lines or [f"exit status {status}"])[-1].removeprefix(ERROR)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _die_with_parent() -> None:
    """End with a sweep that is killed: the next one would write into the same folder."""
    if _LIBC is not None:
        _LIBC.prctl(_DIE, signal.SIGKILL)
