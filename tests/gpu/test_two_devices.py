"""Two devices (NCCL) against one: the same updates, unequal sampling times, and an error on one process alone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from two_processes import Lottery
from two_processes import fit as fit_alone

pytestmark = pytest.mark.gpu
SCRIPT = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="module")
def two(device, tiny_folder, tmp_path_factory) -> dict:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device is here, this takes two")
    out = tmp_path_factory.mktemp("two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    began = time.monotonic()
    ran = subprocess.run(
        [*launcher, str(tiny_folder), device.type, str(out)], capture_output=True, text=True, timeout=110, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said = ran.stdout + ran.stderr
    assert (out / "ddp.pt").is_file(), said
    weights = {name: torch.load(out / f"{name}.pt") for name in ("fsdp2", "ddp")}
    return {"status": ran.returncode, "said": said, "seconds": time.monotonic() - began, "weights": weights}


@pytest.fixture(scope="module")
def one(device, tiny_folder) -> dict[str, torch.Tensor]:
    return fit_alone(tiny_folder, device.type, 1, "auto", Lottery())


@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_two_devices_update_as_one_does_though_one_samples_longer(two, one, strategy):
    found = two["weights"][strategy]
    assert found.keys() == one.keys()
    assert all(torch.allclose(found[name], weight, rtol=0, atol=1e-6) for name, weight in one.items())


def test_a_reward_that_raises_on_one_process_ends_both_at_once(two):
    assert two["status"] != 0
    assert "ZeroDivisionError: a reward of no worth" in two["said"]
    assert two["seconds"] < 100  # of which most are the start; a collective would wait for 300
