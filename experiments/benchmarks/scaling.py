"""How time and memory of sampling, probe and update grow, one quantity at a time, beside what `atmanrl plan` says.

    python -m experiments.benchmarks.scaling --json experiments/benchmarks/results/scaling.json

A Llama of 0.9 M random weights, on one thread, in float32; from its base each range changes one thing alone: the
completions' length, the group, the layers, the vocabulary, the processes that share an update by FSDP2. Times are processor
seconds, the shortest of a few. How a cost grows is the slope of its logarithm over that of the quantity: 1 is in proportion,
2 with the square.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import shlex
import sys
import tempfile
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atmanrl.plan.hardware import CPU
from experiments.benchmarks.plan_check import M_MMAP_THRESHOLD, SHAPES, Work, check, machine
from experiments.benchmarks.scaling_processes import processes

SHAPE = SHAPES["tiny"] | {"max_position_embeddings": 2048}
BASE = Work(prompt=48, completion=64, queries=2, group=4)
LENGTHS, GROUPS, LAYERS = (32, 64, 128, 256, 512, 1024), (2, 4, 8, 16), (2, 4, 8)
VOCABULARIES = (768, 8192, 49152, 128256)
COSTS = (
    "seconds of sampling", "seconds of a probe's gradient", "seconds of an update", "bytes of sampling",
    "bytes of a probe's gradient", "bytes of an update's pass",
)  # fmt: skip
Costs = dict[str, dict[str, float]]


def ranges(repeats: int) -> dict[str, dict[int, Costs]]:
    """Measure every range: by its name, by value, by cost."""
    # a plan for a CPU, but with this core's FLOP/s, bandwidth and time of a kernel
    hardware = replace(
        machine(repeats), efficiency=CPU.efficiency, overlaps=CPU.overlaps, probe_efficiency=CPU.probe_efficiency
    )

    @cache
    def costs(work: Work = BASE, **shape: int) -> Costs:
        measured = check(SHAPE | shape, repeats, work, hardware)
        print(work, shape, {name: measured[name]["predicted/measured"] for name in COSTS}, flush=True)
        return {name: measured[name] for name in COSTS}

    return {
        "completion": {n: costs(replace(BASE, completion=n)) for n in LENGTHS},
        "group": {n: costs(replace(BASE, group=n)) for n in GROUPS},
        "layers": {n: costs(num_hidden_layers=n) for n in LAYERS},
        "vocabulary": {n: costs(vocab_size=n) for n in VOCABULARIES},
    }


def power(values: dict[int, float]) -> float:
    """Return the power of the quantity that a cost grows with, by least squares over the logarithms."""
    x, y = ([math.log(v) for v in column] for column in (values, values.values()))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return round(slope / sum((a - mean_x) ** 2 for a in x), 2)


def growth(measured: dict[str, dict[int, Costs]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return, for each range and cost, the power measured and the power planned."""
    return {
        name: {
            cost: {kind: power({n: values[cost][kind] for n, values in over.items()}) for kind in ("measured", "predicted")}
            for cost in COSTS
        }
        for name, over in measured.items()
    }  # fmt: skip


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Measure how the cost of a run grows.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip_processes", action="store_true", help="leave out the runs on one and two processes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed leaves the process
    measured = ranges(options.repeats)
    results: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.scaling", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, 1 thread a process",
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "shape": SHAPE, "work": asdict(BASE), "growth": growth(measured), "ranges": measured,
    }  # fmt: skip
    if not options.skip_processes:
        with tempfile.TemporaryDirectory() as folder:
            results["processes"] = processes(Path(folder), (1, 2), options.repeats)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    for name, costs in results["growth"].items():
        for cost, powers in costs.items():
            print(f"{name:<12}{cost:<32}{powers['measured']:6.2f} measured {powers['predicted']:6.2f} planned")
    print(json.dumps(results.get("processes", {}), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
