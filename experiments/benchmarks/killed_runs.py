"""A run that is started, left alone or killed, and started again; for `experiments.benchmarks.resume`."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from atmanrl.io.files import TEMPORARY

SETTINGS = [
    "--config", "configs/laptop.yaml", "--model.optimizer=torch.optim.AdamW", "--model.optimizer.lr=1e-4",
    "--data.queries_per_device=2", "--data.group_size=4", "--data.max_new_tokens=96", "--data.val_problems=2",
    "--data.eval_samples=2", "--data.task.train_size=60", "--data.task.test_size=2", "--model.minibatch_queries=1",
    "--model.rewards.saliency.probe.solver.steps=4", "--trainer.val_check_interval=3", "--checkpoint.every_n_updates=2",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
"""58 problems train, 29 updates an epoch: runs also go over epochs' ends."""
WAIT = 0.0005
"""Seconds between two looks at the folder."""


class Run:
    """A run in a folder, started again and again.

    Args:
        folder: the run's.
        updates: how many it trains.
        keep: how many checkpoints it keeps.
    """

    def __init__(self, folder: Path, updates: int, keep: int) -> None:
        self.folder = folder
        self.command = [
            sys.executable, "-m", "atmanrl", "fit", *SETTINGS, f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={updates}", f"--checkpoint.keep={keep}",
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder.with_name(folder.name + ".log")

    def start(self) -> None:
        """Begin, or go on."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*self.command, "--ckpt_path=last"], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def running(self) -> bool:
        """Whether it runs; an error of its own ends the benchmark."""
        assert self.process is not None
        status = self.process.poll()
        if status not in (None, 0, -signal.SIGKILL):
            raise RuntimeError(f"the run ended with status {status}:\n{self.log.read_text(errors='replace')[-3000:]}")
        return status is None

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def began_at(self) -> int:
        """The update of the checkpoint that it said to go on from, 0 for none."""
        found = re.search(rb"going on from \S*update_(\d+)\.ckpt", self.log.read_bytes())
        return int(found[1]) if found else 0

    @property
    def updates(self) -> int:
        """The last update with a log."""
        return max((int(p.stem.split("_")[1]) for p in self.folder.glob("rollouts/update_*.jsonl")), default=0)

    @property
    def checkpoint(self) -> int:
        """The newest finished checkpoint."""
        found = self.folder.glob("checkpoints/update_*.ckpt")
        return max((int(p.stem.split("_")[1]) for p in found), default=0)

    @property
    def writing(self) -> str | None:
        """The checkpoint that is being written."""
        return next((p.name for p in self.folder.glob(f"checkpoints/{TEMPORARY}*-update_*")), None)


def looks(run: Run) -> Iterator[None]:
    """While it runs, now and then."""
    while run.running:
        yield
        time.sleep(WAIT)


def uninterrupted(run: Run) -> None:
    """Train a run from its beginning to its end."""
    run.start()
    for _ in looks(run):
        time.sleep(0.1)


def kill_somewhere(run: Run, rng: random.Random, aimed: bool, first: bool) -> bool:
    """Kill a run that was just started, after it has come further than before; False if it came to its end."""
    begin = run.checkpoint
    if first:  # before there is any checkpoint
        reached = any(run.updates >= 1 for _ in looks(run))
    elif aimed:
        spared = rng.randrange(1, 3)  # checkpoints that may still be written
        seen: set[str] = set()
        for _ in looks(run):
            if writing := run.writing:
                seen.add(writing)
                if len(seen) > spared:
                    break
        reached = run.running
    else:
        reached = any(run.checkpoint > begin for _ in looks(run))
        until = time.monotonic() + rng.uniform(0, 4)
        reached = reached and not (any(time.monotonic() > until for _ in looks(run)) and not run.running)
    if not reached or not run.running:
        return False
    run.kill()
    return True
