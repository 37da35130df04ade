"""Step `warm_start`: worked solutions of GSM8K and of stories teach the model to write short; then a task is chosen.

The policy is measured on training problems that were held out, task by task from the hardest, and the first on which it is
right often enough is what the arms train on (`tasks.choose`).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from lightning import Callback, Trainer

from atmanrl.models.policy import Policy
from atmanrl.sft import SFTDataModule, SFTModule
from atmanrl.tasks import GSM8K, MixtureTask, WordProblems
from experiments.gpu.record import Record
from experiments.real.evaluation import answers, table, test_rows
from experiments.real.scale import Scale
from experiments.real.tasks import HELD, STEPS, STORIES, STORY_SEEDS, TRAIN, choose, task_of

LR, WARMUP = 4e-4, 20


class Losses(Callback):
    """Notes the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Note it."""
        self.losses.append(round(float(trainer.callback_metrics["loss"]), 4))


def measure(args: argparse.Namespace, scale: Scale, record: Record) -> None:
    """Train, save, choose."""
    torch.set_float32_matmul_precision("high")
    device = torch.device(args.device)
    policy = Policy(str(args.work / "base"))
    _train(args, scale, record, policy, device)
    policy.to(device).eval()
    policy.save(args.work / "warm")
    accuracy: dict[str, float] = {}
    for name in (*STEPS, STORIES):
        task = task_of(name, args.work, HELD)
        rows = test_rows(task, scale.held_out, "train")
        rollouts = answers(policy, task, rows, scale.held_samples, scale.new_tokens)
        accuracy[name] = sum(bool(r.correct) for r in rollouts) / len(rollouts)
        record.put(f"held out, {name}", table(rollouts, task, scale.held_samples))
    name = choose(accuracy)
    record.put("chosen", {"task": name, "accuracy": accuracy})
    (args.work / "chosen.json").write_text(json.dumps({"task": name}))


def _train(args: argparse.Namespace, scale: Scale, record: Record, policy: Policy, device: torch.device) -> None:
    gsm8k = GSM8K(str(args.work / TRAIN))
    stories = WordProblems(train_size=scale.stories, test_size=1, seed=STORY_SEEDS["warm_start"])
    sizes = {"gsm8k": float(len(gsm8k.problems("train"))), "stories": float(scale.stories)}
    # one validation problem is asked for, and none is validated: what is held out lies in a folder of its own
    data = SFTDataModule(MixtureTask({"gsm8k": gsm8k, "stories": stories}, sizes), scale.warm_batch, val_problems=1)
    losses, began = Losses(), time.perf_counter()
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=1, max_steps=scale.warm_steps, logger=False,
        max_time={"seconds": max(5, int(record.left * 0.6))}, gradient_clip_val=1.0, limit_val_batches=0, callbacks=[losses],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=str(args.work),
    )  # fmt: skip
    trainer.fit(SFTModule(policy, LR, WARMUP, weight_decay=0.0), datamodule=data)
    record.put("training", {
        "steps": trainer.global_step, "of": scale.warm_steps, "batch": scale.warm_batch, "lr": LR, "examples": sizes,
        "seconds": round(time.perf_counter() - began, 1), "loss": losses.losses[:: max(1, len(losses.losses) // 40)],
    })  # fmt: skip
