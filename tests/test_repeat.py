"""One command, started twice on several threads, is one and the same run."""

import csv
import json
import os
import subprocess
import sys

from conftest import ROOT

SETTINGS = [
    "--config", "configs/laptop_baseline.yaml", "--data.queries_per_device=4", "--data.group_size=8",
    "--data.max_new_tokens=64", "--data.val_problems=1", "--data.eval_samples=2", "--data.task.train_size=60",
    "--data.task.test_size=2", "--model.minibatch_queries=4", "--trainer.val_check_interval=1000", "--trainer.max_steps=1",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
"""Enough rollouts of a prompt that torch shares their gradients out to its threads."""


TWICE = """
import json, sys
from atmanrl.__main__ import main
for run in sys.argv[2:]:
    assert main(["fit", *json.loads(sys.argv[1]), f"--trainer.default_root_dir={run}"]) == 0
"""


def untimed(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "time" not in k and "seconds" not in k} for row in rows]


def test_two_runs_of_one_command_are_equal_bit_for_bit(tmp_path):
    runs = [tmp_path / "once", tmp_path / "again"]
    # threads that spin while they wait would take the cores from each other, and from the tests beside this one
    several = os.environ | {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-c", TWICE, json.dumps(SETTINGS), *map(str, runs)]
    subprocess.run(command, cwd=ROOT, env=several, check=True)
    once, again = (
        [(run / name).read_bytes() for name in ("policy/model.safetensors", "rollouts/update_00001.jsonl")]
        for run in runs
    )
    assert once == again
    assert untimed(runs[0] / "metrics.csv") == untimed(runs[1] / "metrics.csv")
