"""Step `tests`: `pytest -m gpu`, whose results are known one by one.

After a fault a CUDA context is of no use to anybody: the tests then go on in a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.gpu.record import TRACEBACK, Record

ROOT = Path(__file__).parents[2]
WHERE = "ATMANRL_GPU_TESTS_ON"
"""Environment variable: the device that the tests marked `gpu` run on; CUDA by default."""
STARTED = "started"
FAULTS = ("CUDA error", "device-side assert", "CUBLAS_STATUS", "CUDNN_STATUS_EXECUTION_FAILED")


class Results:
    """A plugin of pytest that writes each test's result as a line of JSON, and stops after a fault of the device."""

    def __init__(self, path: Path) -> None:
        self.path, self.faulty = path, False

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keep which test runs: a fault may end the process."""
        self._keep(nodeid, STARTED, 0.0, "")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what counts: the call's result, or that of a setup or teardown that went wrong or skipped the test."""
        if report.when != "call" and report.outcome == "passed":
            return
        text = "" if report.outcome == "passed" else str(report.longreprtext)[-TRACEBACK:]
        if isinstance(report.longrepr, tuple):  # of a skipped test: where, and why
            text = report.longrepr[2].removeprefix("Skipped: ")
        self.faulty |= any(fault in text for fault in FAULTS)
        self._keep(report.nodeid, report.outcome, report.duration, text)

    def pytest_runtest_setup(self, item: Any) -> None:
        """Start no test on a device that is gone."""
        if self.faulty:
            item.session.shouldstop = "the CUDA context is gone"
            raise item.session.Interrupted(item.session.shouldstop)

    def _keep(self, test: str, outcome: str, seconds: float, text: str) -> None:
        with self.path.open("a") as file:
            line = {"test": test, "outcome": outcome, "seconds": round(seconds, 2), "text": text}
            file.write(json.dumps(line) + "\n")


def measure(args: argparse.Namespace, record: Record) -> None:
    """Run the tests, in as many processes as faults ask for."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        path.touch()
        status, before = 2, -1
        while status not in (0, 1, 5) and len(_read(path)) > before and record.left > 10:
            before = len(_read(path))
            status = _run(path, list(_read(path)), args, record)
            lines = _read(path)
            for line in lines.values():
                if line["outcome"] == STARTED:
                    line |= {"outcome": "failed", "text": f"it ended the process, with status {status}"}
            path.write_text("".join(json.dumps(line | {"test": test}) + "\n" for test, line in lines.items()))
            _report(lines, record)
    if status not in (0, 1, 5):
        record.errors["pytest"] = f"it ended with status {status}"
    record.put("status", status)


def _run(path: Path, done: list[str], args: argparse.Namespace, record: Record) -> int:
    command = [sys.executable, "-m", "experiments.gpu.tests", str(path), *done]
    running = subprocess.Popen(command, cwd=ROOT, env=os.environ | {WHERE: args.device})
    while True:
        try:
            return running.wait(1.0)
        except subprocess.TimeoutExpired:
            _report(_read(path), record)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Each test's last line."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return {line.pop("test"): line for line in lines}


def _report(lines: dict[str, dict[str, Any]], record: Record) -> None:
    record.errors = {test: line["text"] for test, line in lines.items() if line["outcome"] == "failed"}
    record.skipped = {test: line["text"].strip() for test, line in lines.items() if line["outcome"] == "skipped"}
    slowest = sorted(lines, key=lambda test: -lines[test]["seconds"])[:5]
    record.put("counts", dict(Counter(line["outcome"] for line in lines.values())))
    record.put("slowest", {test: lines[test]["seconds"] for test in slowest})


def main() -> int:
    """Run pytest without the tests that have a result already; returns its status."""
    import pytest

    path, done = Path(sys.argv[1]), sys.argv[2:]
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", *(f"--deselect={test}" for test in done), "tests/gpu"]
    return int(pytest.main(options, plugins=[Results(path)]))


if __name__ == "__main__":
    sys.exit(main())
