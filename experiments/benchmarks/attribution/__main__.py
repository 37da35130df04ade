"""Which attribution names the tokens that an answer needs?

    python -m experiments.benchmarks.attribution --json experiments/benchmarks/results/attribution.json
    python -m experiments.benchmarks.attribution --model FOLDER --traces FILE.jsonl --work runs/other --json OUT.json

Every method ranks the tokens of the same reasonings, by how much the policy's own answer needs them, right or wrong; then
tokens go and come in that order (`curves.py`, `scoring.py`). The traces are one rollout for each of 72 test problems of
the laptop policy's task, or those of a file. Methods whose library is missing are named and skipped; the libraries are the
extra `attribution`. Each method runs in a process of its own and is kept in `--work`: the same command goes on where it
was stopped, and OUT.json is written after each method.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from atmanrl.rollouts import traces as trace_files
from experiments.benchmarks.attribution import summary, traces
from experiments.benchmarks.attribution.methods import METHODS
from experiments.benchmarks.attribution.scoring import MEASURES, unneeded
from experiments.benchmarks.attribution.table import table

POLICY, PROBLEMS, WORK = "experiments/laptop/policy", 72, Path("runs/attribution")
LIBRARIES = ("torch", "transformers", "captum", "inseq", "flashtrace")


def versions() -> dict[str, str | None]:
    """What was installed; None where nothing was."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def prepared(args: argparse.Namespace, policy: Policy) -> Path:
    """Return the file of traces, sampled where none is given, and refuse a folder with results of others.

    Raises:
        UserError: the folder holds results of another model or of other traces.
    """
    work = args.work
    path = work / "traces.jsonl" if args.traces is None else args.traces
    if not path.exists() and args.traces is None:
        trace_files.write(traces.sample(policy, args.problems), path)
    weights = sorted(Path(args.model).glob("*.safetensors"))
    settings = {
        "model": args.model,
        "weights": [hashlib.sha256(each.read_bytes()).hexdigest() for each in weights],
        "traces": hashlib.sha256(b"".join(path.read_bytes().splitlines(keepends=True)[: args.limit])).hexdigest(),
        "problems": args.problems if args.traces is None else None,
        "each": args.each,
    }
    noted = work / "settings.json"
    if noted.exists() and json.loads(noted.read_text()) != settings:
        raise UserError(f"{work} holds results of another model or of other traces; give another folder by --work.")
    with atomic_write(noted) as out:
        json.dump(settings, out, indent=2)
    return path


def run(name: str, file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return a method's results, from the folder or from a process of its own; or why it is skipped.

    Raises:
        RuntimeError: a method of ours fails. One of a library is skipped, with the error.
    """
    method, path = METHODS[name], args.work / f"{name}.json"
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored
    if method.missing:
        return {"skipped": method.missing}
    command = [sys.executable, "-m", f"{__package__}.worker", "--method", name, "--model", args.model]
    command += ["--traces", str(file), "--out", str(path)]
    for option in ("limit", "each"):
        value = getattr(args, option)
        command += [] if value is None else [f"--{option}", str(value)]
    environment = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"} | dict(os.environ)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode == 0:
        written: dict[str, Any] = json.loads(path.read_text())
        return written
    if method.family == "rival":
        return {"skipped": f"{method.library} fails: {done.stderr.strip().splitlines()[-1]}"}
    raise RuntimeError(f"{name} failed:\n{done.stderr}")


def summarised(stored: dict[str, dict[str, Any]], chosen: Sequence[traces.Trace]) -> dict[str, Any]:
    """Return what is written of some methods' results."""
    problems, correct = [trace.problem for trace in chosen], [trace.correct for trace in chosen]
    ran = {name: result for name, result in stored.items() if "values" in result}
    methods: dict[str, Any] = {}
    for name, result in stored.items():
        methods[name] = {"title": METHODS[name].title, "family": METHODS[name].family, "library": METHODS[name].library}
        if name in ran:
            costs = ("seconds_a_trace", "processor_seconds_a_trace", "peak_mib")
            methods[name] |= {key: result[key] for key in costs}
            methods[name]["measures"] = summary.means(result["values"], problems, correct)
        else:
            methods[name]["skipped"] = result["skipped"]
    compared = summary.comparisons({name: result["values"] for name, result in ran.items()}, problems)
    return {
        "methods": methods,
        "outcomes": summary.outcomes(compared),
        "comparisons": compared,
        "agreement": summary.agreement({name: result["attributions"] for name, result in ran.items()}),
    }


def written(results: dict[str, Any], values: dict[str, Any], path: Path) -> None:
    """Write the results, and below them the values of single traces, a line a method."""
    lines = [f"    {json.dumps(name)}: {json.dumps(each)}" for name, each in values.items()]
    text = json.dumps(results, indent=2).removesuffix("\n}")
    with atomic_write(path) as out:
        out.write(text + ',\n  "values": {\n' + ",\n".join(lines) + "\n  }\n}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write after each method."""
    parser = argparse.ArgumentParser(description="A contest of attributions on the traces of a policy.")
    parser.add_argument("--json", type=Path, required=True, help="where results are written")
    parser.add_argument("--model", default=POLICY, help="a policy's folder")
    parser.add_argument("--traces", type=Path, help="its traces; without it, rollouts of the laptop task are sampled")
    parser.add_argument("--limit", type=int, help="read only the first so many traces")
    parser.add_argument("--each", type=int, help="keep only the first so many traces of each problem")
    parser.add_argument("--problems", type=int, default=PROBLEMS, help="how many rollouts are sampled")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--work", type=Path, default=WORK, help="folder of what is finished")
    args = parser.parse_args(arguments)
    policy = Policy(args.model).build()
    file = prepared(args, policy)
    rollouts = traces.read(file, policy, args.limit, args.each)
    chosen = traces.usable(rollouts, policy)
    head = {
        "command": shlex.join(["python", "-m", __package__, *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": f"{platform.machine()}, one thread",
        "versions": versions(),
        "model": args.model,
        "traces": {
            "file": None if args.traces is None else str(args.traces),
            "task_seed": traces.TASK_SEED if args.traces is None else None,
            "traces": len(chosen),
            "left_out": len(rollouts) - len(chosen),
            "problems": len({trace.problem for trace in chosen}),
            "right": sum(trace.correct is True for trace in chosen),
            "wrong": sum(trace.correct is False for trace in chosen),
            "tokens": sum(trace.length for trace in chosen) / len(chosen),
            "as_likely_without_reasoning": unneeded(policy, chosen),
        },
        "measures": {key: {"title": m.title, "higher_is_better": m.higher} for key, m in MEASURES.items()},
    }
    stored: dict[str, dict[str, Any]] = {}
    for name in args.methods:
        stored[name] = run(name, file, args)
        print(f"{name}: {stored[name].get('skipped', 'done')}", flush=True)
        results = head | summarised(stored, chosen)
        values = {
            method: {key: [round(v, 5) for v in numbers] for key, numbers in result["values"].items()}
            for method, result in stored.items()
            if "values" in result
        }
        written(results, values, args.json)
    print(table(results))


if __name__ == "__main__":
    main()
