"""One command for a machine with a GPU: what works there, how fast it is, and how far `atmanrl plan` is from it.

    python -m experiments.gpu.checklist --minutes 10 --json OUT.json

Steps run in order of worth, each in a process of its own (tiny ones share theirs) with a share of the minutes; what
one leaves goes to the next. Every figure is on disk as soon as it is known: a fault, a fragment of memory or the
clock takes nothing away. A step that fails is recorded with its traceback, and the next one goes on. `--device cpu
--tiny` runs all of them on a CPU with tiny shapes, so that no typo waits for the day a GPU is there.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from atmanrl.io.files import atomic_write
from experiments.gpu.record import TRACEBACK, Record
from experiments.gpu.summary import table

ROOT = Path(__file__).parents[2]
STEPS = {
    "machine": 3, "tests": 18, "attention": 4, "decode": 14, "probe": 15, "update": 18, "trl": 16, "profile": 12,
}  # fmt: skip
"""Steps in order, which are modules of this package, and their shares of the time."""
MARGIN = 10.0
"""Seconds kept for the table."""
GRACE = 3.0
"""Seconds that a step may go beyond its share before it is ended."""


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    made = argparse.ArgumentParser(prog="python -m experiments.gpu.checklist", description=__doc__.split("\n")[0])
    made.add_argument("--minutes", type=float, default=10.0, help="for all steps together (default: 10)")
    made.add_argument("--json", type=Path, required=True, help="results, written after every step")
    made.add_argument("--device", default="cuda", help="cuda (the default), cuda:1, cpu")
    made.add_argument("--tiny", action="store_true", help="tiny shapes, to try the scripts")
    made.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="some of them (default: all)")
    made.add_argument(
        "--tflops", type=float, default=989.0, help="the GPU's dense bf16 TFLOP/s (default: an H100's, 989)"
    )
    made.add_argument("--terabytes", type=float, default=3.35, help="TB/s of its memory (default: an H100's, 3.35)")
    made.add_argument("--run", nargs="+", choices=STEPS, help=argparse.SUPPRESS)
    made.add_argument("--seconds", nargs="+", type=float, help=argparse.SUPPRESS)
    return made


def run_steps(args: argparse.Namespace) -> None:
    """This process is some steps: measure, and write each one's figures."""
    for name, seconds in zip(args.run, args.seconds, strict=True):
        record = Record(args.json / f"{name}.json", seconds)
        try:
            importlib.import_module(f"experiments.gpu.{name}").measure(args, record)
        except Exception:
            record.fail("step", traceback.format_exc())
        record.end()


def children(names: list[str], seconds: list[float], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Steps in a process of their own: their figures, how each ended, and the output where it did not end well."""
    began, found = time.monotonic(), {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [
            sys.executable, "-m", "experiments.gpu.checklist", "--run", *names, "--seconds", *map(str, seconds),
            "--json", folder, "--device", args.device, "--tflops", str(args.tflops),
            "--terabytes", str(args.terabytes), *(["--tiny"] if args.tiny else []),
        ]  # fmt: skip
        with log.open("wb") as output:
            running = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT, start_new_session=True)
            try:
                status = f"failed with status {running.wait(sum(seconds) + GRACE)}"
            except subprocess.TimeoutExpired:
                status = "out of time"
            finally:
                _end(running)
        for name in names:
            file = Path(folder) / f"{name}.json"
            step = json.loads(file.read_text()) if file.is_file() else Record(file).as_dict() | {"seconds": None}
            failed = len(step["errors"])
            ended = (f"done, {failed} failed" if failed else "done") if step.pop("ended") else status
            output_end = "" if ended == "done" else log.read_text(errors="replace")[-TRACEBACK:]
            found[name] = {"status": ended, **step, "output": output_end}
    for step in found.values():
        step["seconds"] = step["seconds"] or round(time.monotonic() - began, 1)
    return found


def _end(running: subprocess.Popen[bytes]) -> None:
    """End a step with all processes that it has started: a test's, a compiler's."""
    try:
        os.killpg(running.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    running.wait()


def main() -> int:
    """Run the steps; returns the exit status, 1 where anything failed."""
    args = parser().parse_args()
    if args.run:
        run_steps(args)
        return 0
    until = time.monotonic() + args.minutes * 60 - MARGIN
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.gpu.checklist", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "steps": {},
    }
    # to import what the steps need takes longer than tiny steps do: those share processes
    rest = args.steps
    while rest:
        several = [name for name in rest if args.tiny and (name == "tests") == (rest[0] == "tests")] or rest[:1]
        left, shares = max(1.0, until - time.monotonic()), sum(STEPS[name] for name in rest)
        seconds = [left * STEPS[name] / shares for name in several]
        print(f"{', '.join(several)}: up to {sum(seconds):.0f} s", flush=True)
        results["steps"] |= children(several, seconds, args)
        with atomic_write(args.json) as file:
            file.write(json.dumps(results, indent=1) + "\n")
        rest = [name for name in rest if name not in several]
    print(table(results))
    return int(any(step["status"] != "done" for step in results["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
