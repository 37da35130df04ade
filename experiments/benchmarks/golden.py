"""Whether the package still does, number for number, what it did when the golden file was recorded.

    python -m experiments.benchmarks.golden --check
    python -m experiments.benchmarks.golden --record      after a change of behaviour that is meant

Three updates and an evaluation of `configs/laptop.yaml` (rollout logs, metrics, evaluation), a probe of eight rollouts
by `paper` and by `adaptive`, and one `explain`, each in a process of its own on one thread. On the machine and with the
versions of the recording every value must be the same to the last bit. Elsewhere matrix products round otherwise: there
texts and tokens must be the same and numbers agree within 1e-5, but for what follows from the adaptive solver, whose choice
of intervals may tip: it gets its own tolerance.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("results") / "golden.json.gz"
FIT = [
    "fit", "--config", "configs/laptop.yaml", "--trainer.max_steps=3", "--trainer.val_check_interval=3",
    "--data.val_problems=8", "--trainer.enable_progress_bar=false", "--checkpoint.every_n_updates=3",
]  # fmt: skip
TRACES = 8
EXPLAIN = """
import json
from atmanrl import explain
print(json.dumps(explain(
    "experiments/laptop/policy", None, answer="14",
    prompt="In a shop, toys cost $6 each and pens cost $7 each. Grace takes 5 toys and 2 pens. She hands over $58. "
    "How much change is there?",
    cot=" The toys cost 5 * 6 = 30 dollars. The pens cost 2 * 7 = 14 dollars. 30 + 14 = 44. 58 - 44 = 14.",
).to_json(mask=True)))
"""
UNTIMED = ("time", "seconds", "versions", "command", "checkpoint", "model", "device")
"""What a value's name may contain that is no behaviour: times, and where things lie."""
ELSEWHERE, ADAPTIVE = 1e-5, 5e-3
"""Largest difference on another machine: of numbers, and of those that the adaptive solver has a hand in."""


def machine() -> dict[str, str]:
    """What results are equal to the last bit for."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("model name", "flags"))]
    flags = set(cpu[1].split()) if len(cpu) > 1 else set()
    widest = next((name for name in ("avx512f", "avx2") if name in flags), platform.machine())
    return {"cpu": cpu[0].split(":")[-1].strip() if cpu else platform.processor(), "instructions": widest} | {
        name: version(name) for name in ("torch", "transformers", "numpy")
    }


def behaviour(folder: Path) -> dict[str, Any]:
    """Run everything in a folder; all that is compared, by name."""
    run, found = folder / "run", {}
    _atmanrl(*FIT, f"--trainer.default_root_dir={run}")
    for update in (1, 2, 3):
        found[f"update {update}"] = _lines(run / f"rollouts/update_{update:05d}.jsonl")
    with (run / "metrics.csv").open(newline="") as file:
        found["metrics"] = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    found["evaluation"] = {path.name: json.loads(path.read_text()) for path in sorted(run.glob("eval/*.json"))}
    traces = folder / "traces.jsonl"
    complete = [row for row in found["update 1"] if row["saliency"]][:TRACES]
    traces.write_text("".join(json.dumps(row) + "\n" for row in complete))
    for solver in ("paper", "adaptive"):
        out = folder / solver
        _atmanrl(
            "probe", "--model", "experiments/laptop/policy", "--traces", str(traces), "--out", str(out),
            f"--probe.solver={solver}",
        )  # fmt: skip
        found[f"probe by {solver}"] = _lines(out / "traces.jsonl")
    found["explain"] = json.loads(_python("-c", EXPLAIN).splitlines()[-1])
    return found


def differences(golden: Any, now: Any, exact: bool, path: str = "") -> Iterator[str]:
    """Where two behaviours are not the same, by path."""
    if isinstance(golden, dict) and isinstance(now, dict):
        for name in sorted(golden.keys() | now.keys()):
            if any(word in name for word in UNTIMED):
                continue
            if name not in now or name not in golden:
                yield f"{path}/{name} is {'gone' if name in golden else 'new'}"
            else:
                yield from differences(golden[name], now[name], exact, f"{path}/{name}")
    elif isinstance(golden, list) and isinstance(now, list) and len(golden) == len(now):
        for i, pair in enumerate(zip(golden, now, strict=True)):
            yield from differences(*pair, exact, f"{path}/{i}")
    elif golden != now and (exact or not _close(golden, now, path)):
        yield f"{path}: {str(golden)[:80]} is {str(now)[:80]}"


def _close(golden: Any, now: Any, path: str) -> bool:
    """Whether two numbers, or texts of numbers in `metrics.csv`, agree as far as another machine's rounding lets them."""
    try:
        theirs, ours = float(golden), float(now)
    except (TypeError, ValueError):
        return False
    by_adaptive = any(
        word in path for word in ("saliency", "probe", "reward", "loss", "norm", "explain", "metrics", "/eval")
    )
    tolerance = ADAPTIVE if by_adaptive and "by paper" not in path else ELSEWHERE
    return math.isclose(theirs, ours, rel_tol=tolerance, abs_tol=tolerance)


def _atmanrl(*arguments: str) -> None:
    _python("-m", "atmanrl", *arguments)


def _python(*arguments: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> int:
    """Record, or compare; status 1 where anything differs."""
    parser = argparse.ArgumentParser(description="The package's behaviour against a recording, number for number.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare with the recording")
    what.add_argument("--record", action="store_true", help="take the present behaviour for golden")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="golden_") as folder:
        now = json.loads(json.dumps(behaviour(Path(folder))))
    if args.record:
        text = json.dumps({"machine": machine(), "behaviour": now}, sort_keys=True)
        GOLDEN.write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"recorded {GOLDEN} ({GOLDEN.stat().st_size / 1e3:.0f} kB)")
        return 0
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    exact = golden["machine"] == machine()
    print("the machine of the recording: bit for bit" if exact else f"another machine: within {ELSEWHERE}")
    unlike = list(differences(golden["behaviour"], now, exact))
    print("\n".join(unlike[:40]) or "no difference")
    return 1 if unlike else 0


if __name__ == "__main__":
    sys.exit(main())
