"""The instrument and AtManRL on SmolLM2-135M-Instruct, on one GPU in minutes: one command, several processes at once.

    python -m experiments.real.gpu --gguf SmolLM2.gguf --data DIR --minutes 8 --json OUT/real.json

First `instrument` and `warm_start` run beside each other, then six arms (outcome, outcome + saliency; three seeds each).
Results are on disk after every figure: `OUT/real.json`, and beside it the texts, `real.traces.jsonl` and `real.eval.jsonl`.
`--device cpu --tiny --model experiments/laptop/policy` tries all of it on a CPU in a minute.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shlex
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atmanrl.io.files import atomic_write
from atmanrl.io.rows import finite
from experiments.gpu.record import Record
from experiments.real.processes import Child, wait
from experiments.real.scale import AFTERWARDS, ARMS, FULL, TINY, Scale
from experiments.real.tasks import split_data

SHARES = {"instrument": 0.33, "warm_start": 0.33}
"""Parts of the time, once data and model are there, after which the first steps are ended."""
MARGIN = 8.0
"""Seconds kept to write everything down."""
SAFETY = 0.95
"""Of the time that is left for updates, the part that is planned for."""


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    options = argparse.ArgumentParser(prog="python -m experiments.real.gpu", description=__doc__.split("\n")[0])
    model = options.add_mutually_exclusive_group(required=True)
    model.add_argument("--gguf", type=Path, nargs="+", help="the GGUF file, or its parts in order")
    model.add_argument("--model", type=Path, help="the model's folder, in place of a GGUF file")
    options.add_argument("--data", type=Path, required=True, help="a folder with GSM8K's train.jsonl and test.jsonl")
    options.add_argument("--minutes", type=float, default=8.0, help="for everything (default: 8)")
    options.add_argument("--json", type=Path, required=True, help="results; texts are written beside it")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--tiny", action="store_true", help="tiny sizes, to try the scripts")
    options.add_argument("--run", help=argparse.SUPPRESS)
    options.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return options


def run(args: argparse.Namespace) -> None:
    """This process is one step: measure, and write its figures."""
    record = Record(args.work / f"{args.run}.json", args.until - time.time())
    module = {"before": "evaluation"}.get(args.run, args.run if args.run in SHARES else "arm")
    scale: Scale = TINY if args.tiny else FULL
    try:
        importlib.import_module(f"experiments.real.{module}").measure(args, scale, record)
    except Exception:
        record.fail("step", traceback.format_exc())
        raise
    record.end()


class Results:
    """What all steps have measured, in one file, and the texts in two."""

    def __init__(self, args: argparse.Namespace, work: Path) -> None:
        self.args, self.work, self.children = args, work, list[Child]()
        names = ("torch", "transformers", "lightning")
        self.head: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "experiments.real.gpu", *sys.argv[1:]]),
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
        }

    def write(self) -> None:
        """Write the figures and gather the texts."""
        steps = {child.name: child.result for child in self.children}
        for name in steps:
            curve = self.work / f"curve.{name}.jsonl"
            if curve.exists():
                steps[name]["curve"] = [json.loads(line) for line in curve.read_text().splitlines()]
        with atomic_write(self.args.json) as file:
            file.write(json.dumps(finite({**self.head, "steps": steps}), indent=1) + "\n")
        for kind in ("traces", "eval"):
            texts = sorted([*self.work.glob(f"{kind}.jsonl"), *self.work.glob(f"{kind}.*.jsonl")])
            if texts:
                with atomic_write(self.args.json.with_suffix(f".{kind}.jsonl")) as file:
                    file.write("".join(path.read_text() for path in texts))


def prepare(args: argparse.Namespace, work: Path) -> None:
    """Put data and model where the steps find them."""
    split_data(args.data, work, (TINY if args.tiny else FULL).problems)
    if args.model is not None:
        (work / "base").symlink_to(args.model.resolve())
        return
    from atmanrl.models.policy import Policy

    whole = work / "model.gguf"
    with whole.open("wb") as file:
        for part in args.gguf:
            file.write(part.read_bytes())
    Policy(str(whole)).build().save(work / "base")
    whole.unlink()


def decide(arms: list[Child], work: Path, scale: Scale, until: float) -> None:
    """Write how many updates all arms make, as soon as the slowest of them has shown its pace."""
    agreed, curves = work / "updates.json", []
    for arm in arms:
        path = work / f"curve.{arm.name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        if arm.seconds is None and len(lines) < scale.paced:
            return
        curves += [[json.loads(line)["at"] for line in lines]] if arm.seconds is None else []
    if agreed.exists() or not curves:
        return
    # the first update compiles and captures; where it is the only one, its own time has to do
    paces = [(at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 2.0 for at in curves]
    left = SAFETY * max(0.0, until - time.time())
    number = min(len(at) + int(left / pace) for at, pace in zip(curves, paces, strict=True))
    with atomic_write(agreed) as file:
        file.write(json.dumps({"updates": max(number, 1 + max(map(len, curves))), "seconds of an update": paces}))


def main() -> int:
    """Run all steps; returns the exit status, 1 where one did not end well."""
    args = parser().parse_args()
    if args.run:
        run(args)
        return 0
    began, scale = time.time(), TINY if args.tiny else FULL
    until = began + args.minutes * 60 - MARGIN
    command = ["--data", str(args.data), "--json", str(args.json), "--device", args.device, *["--tiny"] * args.tiny]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results = Results(args, work)
        prepare(args, work)
        command += ["--model", str(work / "base"), "--work", str(work)]
        results.head["seconds to prepare"] = round(time.time() - began, 1)
        ready = time.time()
        for name, share in SHARES.items():
            results.children.append(Child(name, command, work, ready + share * (until - ready)))
        wait(results.children, results.write)
        if (work / "chosen.json").exists():
            results.head["arms began after"] = round(time.time() - began, 1)
            arms = [Child(f"{arm}-{seed}", command, work, until) for seed in scale.seeds for arm in ARMS]
            results.children += [Child("before", command, work, until), *arms]
            stop = until - min(AFTERWARDS, 0.5 * (until - time.time()))

            def each_second() -> None:
                decide(arms, work, scale, stop)
                results.write()

            wait(results.children, each_second)
            results.head["updates"] = (
                json.loads((work / "updates.json").read_text()) if (work / "updates.json").exists() else None
            )
        results.head["seconds"] = round(time.time() - began, 1)
        results.write()
        ended = {child.name: child.result["status"] for child in results.children}
    print(json.dumps({**results.head, "status": ended}, indent=1))
    return int(any(status != "done" for status in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
