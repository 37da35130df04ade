"""One process of two fails, in plain processes without torchrun: both end within seconds, with the error's text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from launch import ROOT

SCRIPT = Path(__file__).with_name("failures.py")
SECONDS = 30  # of which most go into the start of a run on a busy machine; the group's own timeout is 60


@pytest.fixture(scope="module")
def cases(tmp_path_factory, tiny_folder) -> dict:
    folder = tmp_path_factory.mktemp("failures")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(SCRIPT.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    subprocess.run([sys.executable, str(SCRIPT), str(tiny_folder), str(folder)], env=environment, check=True)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize(
    ("case", "rank", "text"),
    [
        ("reward_0", 0, "reward 'lottery' raised ZeroDivisionError: a reward of no worth"),
        ("reward_1", 1, "reward 'lottery' raised ZeroDivisionError: a reward of no worth"),
        ("sampling", 1, "the model gives NaN logits"),
        ("callback", 0, "OSError: [Errno 28] No space left on device: 'rollouts.jsonl'"),
        ("setup", 1, "there is no file train.jsonl"),
    ],
)
def test_two_processes_end_together_with_the_first_errors_text(cases, case, rank, text):
    failed, other = cases[case][rank], cases[case][1 - rank]
    assert failed["status"] == 3 and text.removeprefix("OSError: ") in failed["said"].partition("raised ")[2]
    assert other["status"] == 1
    assert f"atmanrl: error: process {rank} of 2 failed, and all end: {text}" in other["said"]
    assert max(failed["seconds"], other["seconds"]) < SECONDS
    assert "TCPStore" not in failed["said"] + other["said"]  # the first process, which keeps the store, goes last


def test_two_processes_that_both_raise_keep_their_own_errors_and_can_go_on(cases):
    for rank, process in enumerate(cases["all"]):
        assert process["status"] == 0, process["said"]
        assert f"an option that cannot be, says {rank}\n" in process["said"]
        assert process["said"].splitlines()[-1] == "4 steps"
