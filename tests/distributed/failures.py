"""Runs in which one process of two fails. As a script: all of them, each on two processes forked from this one."""

import errno
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from launch import free_port
from lightning import Callback
from updates import GROUP, Lottery, Ragged, module_of, quiet, strategy_of, trainer_of

from atmanrl.distributed import FailTogether, processes
from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rewards import Reward

FOREVER = 300
LIMIT = 60


class Raising(Reward):
    """Raises on one process."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def __call__(self, batch, policy):
        if processes().rank == self.rank:
            raise ZeroDivisionError("a reward of no worth")
        return Lottery()(batch, policy)


class Filling(Callback):
    """Finds the disk full on the first process."""

    def on_train_batch_end(self, trainer, *_) -> None:
        if processes().rank == 0:
            raise OSError(errno.ENOSPC, "No space left on device", "rollouts.jsonl")


class Unlike(Ragged):
    """In validation the second process gets NaN from the model, while the first is still sampling."""

    def answer(self, policy, problems, split_name, *args):
        if split_name == "val":
            if processes().rank == 1:
                raise UserError("the model gives NaN logits")
            for _ in range(FOREVER * 10):
                time.sleep(0.1)
        return super().answer(policy, problems, split_name, *args)


class Missing(Ragged):
    """Its file lies on the first process's disk alone."""

    def setup(self, stage):
        if processes().rank == 1:
            raise UserError("there is no file train.jsonl")
        super().setup(stage)


class Late(Ragged):
    """Refused on both processes, on one later than on the other; at the second attempt it is not."""

    refused = False

    def setup(self, stage):
        super().setup(stage)
        if not self.refused:
            self.refused = True
            time.sleep(2.0 * processes().rank)
            raise UserError(f"an option that cannot be, says {processes().rank}")


def fit(folder, strategy, feed=Ragged, reward=None, callbacks=(), grace=1.0, attempts=1, **options) -> None:
    rewards = {"lottery": Lottery() if reward is None else reward}
    for attempt in range(attempts):
        trainer = trainer_of(folder, strategy_of(strategy), 2, callbacks=[FailTogether(grace), *callbacks], **options)
        feed = feed() if attempt == 0 else feed
        try:
            trainer.fit(module_of(Policy(str(folder)), rewards=rewards), feed)
        except UserError as error:
            if attempt + 1 == attempts:
                raise
            print(error)
    print(f"{GROUP * trainer.global_step} steps")


CASES = {
    "reward_0": lambda folder: fit(folder, "ddp", reward=Raising(0), limit_val_batches=0),
    "reward_1": lambda folder: fit(folder, "fsdp2", reward=Raising(1), limit_val_batches=0),
    "sampling": lambda folder: fit(folder, "fsdp2", Unlike, val_check_interval=1),
    "callback": lambda folder: fit(folder, "ddp", callbacks=[Filling()], limit_val_batches=0),
    "setup": lambda folder: fit(folder, "fsdp2", Missing),
    "all": lambda folder: fit(folder, "ddp", Late, grace=20.0, attempts=2, limit_val_batches=0),
}


def process(case: str, rank: int, port: int, folder: Path, out: Path) -> int:
    """The number of a process that runs a case."""
    if number := os.fork():
        return number
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": case, "RANK": str(rank), "LOCAL_RANK": str(rank),
    }  # fmt: skip
    status = 0
    try:
        CASES[case](folder)
        dist.destroy_process_group()
    except Exception as error:
        print(f"raised {type(error).__name__}: {error}")
        status = 3
    raise SystemExit(status)


def ended(numbers: list[int], began: float) -> list[tuple[int | None, float]]:
    """Exit status and seconds of each process; after a minute it is stopped and has none."""
    found: dict[int, tuple[int | None, float]] = {}
    while len(found) < len(numbers):
        for number in set(numbers) - found.keys():
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                found[number] = os.waitstatus_to_exitcode(status), time.monotonic() - began
            elif time.monotonic() - began > LIMIT:
                os.kill(number, signal.SIGKILL)
                os.waitpid(number, 0)
                found[number] = None, LIMIT
        time.sleep(0.05)
    return [found[number] for number in numbers]


def main(policy: Path, folder: Path) -> None:
    """Run all cases and write what became of them into `found.json`."""
    quiet()
    torch.set_num_threads(1)
    Policy(str(policy)).build()  # what this imports is imported once, before the processes are forked
    gc.freeze()  # or each of them would copy the memory of all that is imported when it collects garbage
    found = {}
    for case in CASES:
        port, began = free_port(), time.monotonic()
        outs = [folder / f"{case}_{rank}.txt" for rank in (0, 1)]
        ends = ended([process(case, rank, port, policy, out) for rank, out in enumerate(outs)], began)
        found[case] = [
            {"status": status, "seconds": seconds, "said": out.read_text()}
            for (status, seconds), out in zip(ends, outs, strict=True)
        ]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
