"""Sweeps whose trials are a small script, and what they leave."""

import csv
import signal
import subprocess
import sys
import time

import yaml
from conftest import ROOT

from atmanrl.__main__ import main

STUB = """
import os, pathlib, sys, time
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(given.pop("trainer.default_root_dir"))
(folder.parent / "calls.txt").open("a").write(f"{folder.name} {sorted(given.items())}\\n")
(folder / "threads.txt").write_text(os.environ.get("OMP_NUM_THREADS", "its own choice"))
wait = folder.parent / "wait"
if wait.exists() and folder.name == wait.read_text():
    time.sleep(60)
if given.get("x") == "bad":
    sys.exit("atmanrl: error: x is bad.")
rows = "step,score\\n0,\\n1," + str(float(given["x"]) * float(given.get("y", 1))) + "\\n2,\\n"
(folder / "metrics.csv").write_text(rows)
"""


def sweep(tmp_path):
    """A function that writes a sweep of the stub command and returns its file; `out` beside it is its folder."""
    (tmp_path / "stub.py").write_text(STUB)

    def write(parameters, **changes):
        values = {"method": "grid", "metric": {"name": "score", "goal": "maximize"}, "parameters": parameters}
        values["command"] = ["${env}", "${interpreter}", str(tmp_path / "stub.py"), "${args}"]
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(values | changes, sort_keys=False))
        return tmp_path / "s.yaml"

    return write


def run(path, *more):
    return main(["sweep", str(path), f"--out={path.parent / 'out'}", *more])


def table(path):
    with (path.parent / "out/sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def calls(path):
    return (path.parent / "out/calls.txt").read_text().splitlines()


def background(path, *more, before="pass"):
    """Start a sweep in a process of its own, which first runs a statement."""
    code = f"{before}\nimport sys; from atmanrl.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", str(path), f"--out={path.parent / 'out'}", *more]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background ignore it
    try:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    finally:
        signal.signal(signal.SIGINT, handler)


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
