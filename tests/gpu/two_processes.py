"""One process's part of updates of the tiny policy in float64, under FSDP2 and DDP; at the end a reward raises on rank 0."""

import logging
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from lightning import Trainer, seed_everything

from atmanrl.distributed import FSDP2Strategy, full_weights, processes
from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe, PaperSolver
from atmanrl.rewards import Reward, SaliencyReward
from atmanrl.rollouts import Completion, RolloutDataModule, split
from atmanrl.tasks import WordProblems

QUERIES, GROUP, LATE = 4, 2, 1.0
"""Problems of an update over all processes, rollouts of each, and by how many seconds the last process samples longer."""


class Lottery(Reward):
    """Luck, but the same luck for the same tokens."""

    def __call__(self, batch, policy):
        return torch.tensor([sum(r.completion.ids) % 7 / 7 for r in batch.rollouts])


class Failing(Lottery):
    """Raises on the first process alone."""

    def __call__(self, batch, policy):
        if processes().rank == 0:
            raise ZeroDivisionError("a reward of no worth")
        return super().__call__(batch, policy)


class Feed(RolloutDataModule):
    """The last process samples longer, and every other completion is one that parses."""

    def __init__(self, count: int) -> None:
        task = WordProblems(train_size=30, test_size=5, instruction="")
        super().__init__(task, queries_per_device=QUERIES // count, group_size=GROUP, max_new_tokens=6, val_problems=5)

    def answer(self, policy, *args):
        batch = super().answer(policy, *args)
        time.sleep(LATE * processes().rank)
        for i, rollout in enumerate(batch.rollouts):
            if i % 2:
                ids = [*policy.tokenizer(f"so 3 + 4 = {rollout.row}. ##### {rollout.row}").input_ids, policy.eos_ids[0]]
                rollout.completion = Completion(ids, [-6.6] * len(ids), True)
                rollout.parts, rollout.correct = split(policy.tokenizer, ids), rollout.row % 2 == 0
        return batch


def fit(folder: Path, kind: str, count: int, strategy, reward: Reward) -> dict[str, torch.Tensor]:
    """The weights after two updates, on rank 0."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything(1, verbose=False)
    policy = Policy(str(folder), dtype="float64")
    rewards = {"lottery": reward, "saliency": SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=3, lr=1e-2)))}
    module = GRPOModule(policy, rewards, lambda p: torch.optim.AdamW(p, lr=1e-3), minibatch_queries=2 // count)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        accelerator="gpu" if kind == "cuda" else "cpu", devices=count, strategy=strategy, max_steps=2,
        limit_val_batches=0, default_root_dir=folder, **quiet,
    )  # fmt: skip
    trainer.fit(module, Feed(count))
    return full_weights(policy.model)


if __name__ == "__main__":
    place, device_kind, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    for name in ("fsdp2", "ddp"):
        chosen = FSDP2Strategy(timeout_seconds=300) if name == "fsdp2" else name
        weights = fit(place, device_kind, int(os.environ["WORLD_SIZE"]), chosen, Lottery())
        if processes().rank == 0:
            torch.save(weights, out / f"{name}.pt")
    fit(place, device_kind, int(os.environ["WORLD_SIZE"]), FSDP2Strategy(timeout_seconds=300), Failing())
