"""Processor time of the command line: to its help, to an error in an option, and to the first own line of a run.

    python -m experiments.benchmarks.startup --json experiments/benchmarks/results/startup.json

Each command runs three times; the least counts, user and system time together, which other work on the machine changes
little. A command that would go on is ended at the line that is waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

POLICY = Path(__file__).parents[1] / "laptop" / "policy"
CONFIG = "--config=laptop"
MODEL = f"--model={POLICY}"
LOADING, BEGUN = "loading torch", " completions, of at most "
FIT = ("fit", CONFIG, "--trainer.default_root_dir={folder}/run")
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "help": (("--help",), ""),
    "help of fit": (("fit", "--help"), ""),
    "help of probe": (("probe", "--help"), ""),
    "a misspelt option of fit": ((*FIT, "--model.rewards.saliency.weigth=1"), ""),
    "a value out of its range, fit": ((*FIT, "--data.group_size=1"), ""),
    "a misspelt option of probe": (("probe", MODEL, "--traces=README.md", "--out={folder}/p", "--limt=3"), ""),
    "a wrong choice of explain": (("explain", MODEL, "--prompt=x", "--dtype=flot32"), ""),
    "no such traces, probe": (("probe", MODEL, "--traces=nowhere.jsonl", "--out={folder}/p"), ""),
    "no such run, table": (("table", "nowhere"), ""),
    "no such run, report": (("report", "nowhere", "--out={folder}/r"), ""),
    "no such checkpoint, export": (("export", "--ckpt=nowhere/a.ckpt", "--out={folder}/e"), ""),
    "a wrong memory, plan": (("plan", CONFIG, "--devices=1", "--memory=8GX", "--flops=1T"), ""),
    "no such file, sweep": (("sweep", "sweeps/nothing"), ""),
    "configs": (("configs",), ""),
    "fit, to its first line": (FIT, LOADING),
    "fit, to what it is about to do": (FIT, BEGUN),
    "test, to its first line": (("test", CONFIG, "--trainer.default_root_dir={folder}/test"), LOADING),
    "explain, a whole answer": (("explain", MODEL, "--prompt=3 + 4?", "--cot= 3 + 4 = 7.", "--gold=7"), ""),
    "plan, whole": (("plan", CONFIG, "--devices=1", "--memory=8GB", "--flops=1T"), ""),
}  # fmt: skip
"""What is measured: the arguments, and what the line holds that ends it; empty for the command's own end."""
LIBRARIES = ("torch", "torch, torch._dynamo", "torch, transformers", "lightning.pytorch", "spacy", "jsonargparse")


def seconds(command: list[str], until: str) -> float:
    """Return the processor time of a command, to its end or to a line that holds a text."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if until and until in line:
            process.send_signal(signal.SIGKILL)
            break
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    process.stdout.close()
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, print, and write as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (arguments, until) in COMMANDS.items():
            command = [sys.executable, "-m", "atmanrl", *(each.format(folder=folder) for each in arguments)]
            measured[name] = round(min(seconds(command, until) for _ in range(options.repeats)), 2)
            print(f"{measured[name]:6.2f} s  {name}", flush=True)
    libraries: dict[str, float] = {}
    for names in LIBRARIES:
        command = [sys.executable, "-c", f"import {names}"]
        libraries[names] = round(min(seconds(command, "") for _ in range(options.repeats)), 2)
        print(f"{libraries[names]:6.2f} s  import {names}", flush=True)
    if options.json:
        packages = ("torch", "lightning", "transformers", "torchmetrics", "jsonargparse", "spacy")
        versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
        record = {"processor_seconds": measured, "imports": libraries, "versions": versions, "repeats": options.repeats}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
