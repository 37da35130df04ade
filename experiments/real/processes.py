"""Steps as processes of their own, several at once: started, watched, ended, and what each has measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.gpu.record import TRACEBACK

ROOT = Path(__file__).parents[2]
THREADS = "2"
"""CPU threads of a process, unless the environment says otherwise."""


class Child:
    """One step's process.

    Args:
        name: of the step, such as `instrument` or `saliency-0`.
        command: its options of `experiments.real.gpu`.
        work: the folder with its record and its output.
        until: `time.time()` at which it is ended.
    """

    def __init__(self, name: str, command: Sequence[str], work: Path, until: float) -> None:
        self.name, self.work, self.until, self.began = name, work, until, time.time()
        self.seconds: float | None = None
        self.output = (work / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.real.gpu", "--run", name, "--until", str(until), *command],
            stdout=self.output, stderr=self.output, cwd=ROOT, start_new_session=True,
            env={"OMP_NUM_THREADS": THREADS, **os.environ, "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether it runs; one that is out of time is ended."""
        if self.seconds is None and (self.process.poll() is not None or time.time() > self.until):
            self.end()
        return self.seconds is None

    def end(self) -> None:
        """End the process with those that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.seconds = self.seconds or round(time.time() - self.began, 1)
        self.output.close()

    @property
    def result(self) -> dict[str, Any]:
        """What it has measured, and how it ended, with the end of its output where it did not end well."""
        file, code = self.work / f"{self.name}.json", self.process.returncode
        step: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"ended": False}
        if step.pop("ended"):
            status = "done"
        else:
            status = "running" if code is None else "out of time" if code == -signal.SIGKILL else f"failed ({code})"
        text = (self.work / f"{self.name}.log").read_text(errors="replace")[-TRACEBACK:]
        return {"status": status, **step, "wall_seconds": self.seconds, "output": "" if status == "done" else text}


def wait(children: Sequence[Child], each_second: Callable[[], None]) -> None:
    """Wait until all have ended."""
    while any([child.running for child in children]):
        each_second()
        time.sleep(1.0)
    each_second()
