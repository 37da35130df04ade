"""Step `arm`: GRPO from the warm start, by outcome alone or by outcome and saliency, and what became of the policy.

Arms run at once on one GPU and all stop after the same number of updates, which `gpu` decides by the pace of the slowest and
writes into `updates.json`. Weights, sampling and the probe are float32 with TF32 products.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.rewards import OutcomeReward, Reward, SaliencyReward
from experiments.gpu.record import Record
from experiments.real.evaluation import append, data_of, evaluate
from experiments.real.scale import AFTERWARDS, Scale
from experiments.real.tasks import chosen, task_of

LR, WEIGHT, TOLERANCE = 1e-5, 10.0, 0.004
"""AdamW's learning rate; of the saliency reward, its weight (as on the laptop: it evens out the spreads) and tolerance."""


class Pace(Callback):
    """Writes every update's figures, and stops at the number of updates that all arms stop at.

    Args:
        path: of the arm's curve, one JSON object an update.
        agreed: the file that holds the number, once it is decided.
        until: `time.time()` at which an arm stops at the latest, with fewer updates than the others.
    """

    def __init__(self, path: Path, agreed: Path, until: float) -> None:
        self.path, self.agreed, self.until, self.began = path, agreed, until, time.time()

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Write, and decide."""
        figures = {key: round(float(value), 6) for key, value in trainer.callback_metrics.items()}
        now = time.time()
        append(
            self.path, [{"update": trainer.global_step, "at": now, "seconds": round(now - self.began, 3), **figures}]
        )
        number = json.loads(self.agreed.read_text())["updates"] if self.agreed.exists() else None
        if (number is not None and trainer.global_step >= number) or now >= self.until:
            trainer.should_stop = True


def measure(args: argparse.Namespace, scale: Scale, record: Record) -> None:
    """Train one arm with one seed; evaluate."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_float32_matmul_precision("high")
    kind, seed = args.run.rsplit("-", 1)
    name, device = chosen(args.work), torch.device(args.device)
    task = task_of(name, args.work)
    policy = Policy(str(args.work / "warm")).build().to(device)
    record.put("setting", {"task": name, "lr": LR, "saliency weight": WEIGHT, "tolerance": TOLERANCE})
    _fit(args, scale, record, policy, data_of(
        task, int(seed), 1, queries_per_device=scale.queries, group_size=scale.group, val_problems=1,
        max_new_tokens=scale.new_tokens, resample_zero_spread=1,
    ), _rewards(kind, scale))  # fmt: skip
    evaluate(args, scale, record, policy.to(device).eval(), task)


def _rewards(kind: str, scale: Scale) -> dict[str, Reward]:
    rewards: dict[str, Reward] = {"outcome": OutcomeReward()}
    if kind == "saliency":
        solver = AdaptiveSolver(tolerance=TOLERANCE, steps=scale.solver_steps)
        rewards["saliency"] = SaliencyReward(WEIGHT, MaskProbe(solver=solver, batch_tokens=4096))
    return rewards


def _fit(
    args: argparse.Namespace, scale: Scale, record: Record, policy: Policy, data: Any, rewards: dict[str, Reward]
) -> None:
    curve = args.work / f"curve.{args.run}.jsonl"
    pace = Pace(curve, args.work / "updates.json", args.until - min(AFTERWARDS, 0.5 * record.left))
    module = GRPOModule(
        policy, rewards, optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0),
        minibatch_queries=max(1, scale.queries // 2), micro_batch_tokens=2048, rescore=True, seed=data.seed,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="gpu" if args.device != "cpu" else "cpu", devices=1, max_steps=scale.updates, callbacks=[pace],
        logger=False, limit_val_batches=0, num_sanity_val_steps=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(args.work), log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    peak = torch.cuda.max_memory_allocated() / 2**20 if args.device != "cpu" else 0
    record.put("training", {"updates": trainer.global_step, "peak_mib": round(peak, 1)})
