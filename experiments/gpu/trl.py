"""Step `trl`: an update of TRL's `GRPOTrainer` beside ours, with the outcome alone, for a 1B-shaped Llama in bf16-mixed."""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.benchmarks.trainers import Setting, Update, atmanrl_trainer, trl_trainer
from experiments.gpu.record import Record
from experiments.gpu.scene import LLAMA_1B, TINY, Scene, folder

TRAINERS: dict[str, Callable[..., Callable[[], object]]] = {"atmanrl": atmanrl_trainer, "trl": trl_trainer}
UPDATES, COMPLETION = 3, 128
"""The first update warms up."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """Both trainers, one after the other, from the same random weights."""
    missing = [name for name in ("trl", "datasets") if find_spec(name) is None]
    if missing:
        record.skip("trl", f"not installed: {', '.join(missing)}")
        return
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with folder(TINY if args.tiny else LLAMA_1B) as place:
        draw_weights(place, scene)
        for who in TRAINERS:
            if record.in_time(who, 1.0 if args.tiny else 20.0):
                with record.guarded(who) as found:
                    found |= _one(who, place, scene)
            gc.collect()
            if scene.cuda:
                torch.cuda.empty_cache()
    if {"trl", "atmanrl"} <= record.metrics.keys():
        theirs, ours = (record.metrics[who] for who in ("trl", "atmanrl"))
        record.put("trl / atmanrl", {key: theirs[key] / ours[key] for key in ours if ours[key]})


def draw_weights(place: Path, scene: Scene) -> None:
    """Write random weights into the folder."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    with scene.device:
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(place)).save_pretrained(place)


def setting_of(place: Path, scene: Scene) -> Setting:
    """Return what both trainers are told: a few updates of the scene's rollouts, the weights drawn in a folder."""

    def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0, fused=True)

    updates, length = (2, 8) if scene.tiny else (UPDATES, COMPLETION)
    return Setting(
        str(place), adamw, updates, queries=scene.queries, group=scene.group, tokens=length,
        minibatch=1 if scene.tiny else 2, device=scene.device.type, bf16=True,
    )  # fmt: skip


def _one(who: str, place: Path, scene: Scene) -> dict[str, Any]:
    ended: list[float] = []
    reports: list[Update] = []

    def watch(update: Update) -> None:
        scene.synchronise()
        ended.append(time.perf_counter())
        reports.append(update)

    setting = setting_of(place, scene)
    scene.fresh_peak()
    with tempfile.TemporaryDirectory() as aside:
        TRAINERS[who](setting, aside, watch)()
    return {
        "update_s": statistics.median(b - a for a, b in zip(ended[1:], ended[2:], strict=False)),
        "rollout_s": statistics.median(report.rollout_s for report in reports[2:]),
        "tokens_an_update": statistics.mean(report.tokens for report in reports[2:]),
        "peak_gib": scene.peak() / 2**30,
    }
