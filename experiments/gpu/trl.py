"""Step `trl`: an update of TRL's `GRPOTrainer` beside ours, with the outcome alone, for a 1B-shaped Llama in bf16-mixed.

`update_s` is all of an update, `rollout_s` its sampling, `learning_s` the rest. Ours also with what TRL has not.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.benchmarks.trainers import Setting, Update, atmanrl_trainer, trl_trainer
from experiments.gpu.record import Record
from experiments.gpu.scene import LLAMA_1B, TINY, Scene, folder

Make = Callable[[Setting, str, Callable[[Update], None]], Callable[[], object]]
TRAINERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "atmanrl": (atmanrl_trainer, {}),
    "trl": (trl_trainer, {}),
    "atmanrl, decoding captured": (atmanrl_trainer, {"sampler": ("static", "auto")}),
}
"""Each with what differs from the setting."""
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
        for who, (_, options) in TRAINERS.items():
            if options and not scene.cuda:
                record.skip(who, "a CPU captures nothing")
            elif record.in_time(who, 1.0 if args.tiny else 15.0):
                with record.guarded(who) as found:
                    found |= _one(who, place, scene)
            gc.collect()
            if scene.cuda:
                torch.cuda.empty_cache()
    theirs = record.metrics.get("trl", {})
    for who in [who for who in TRAINERS if who != "trl" and who in record.metrics and theirs]:
        ours = record.metrics[who]
        record.put(f"trl / {who}", {key: theirs[key] / ours[key] for key in ours if ours[key]})


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

    trainer, options = TRAINERS[who]
    setting = replace(setting_of(place, scene), **options)
    scene.fresh_peak()
    with tempfile.TemporaryDirectory() as aside:
        trainer(setting, aside, watch)()
    seconds = statistics.median(b - a for a, b in zip(ended[1:], ended[2:], strict=False))
    rollout = statistics.median(report.rollout_s for report in reports[2:])
    return {
        "update_s": seconds,
        "rollout_s": rollout,
        "learning_s": seconds - rollout,
        "tokens_an_update": statistics.mean(report.tokens for report in reports[2:]),
        "peak_gib": scene.peak() / 2**30,
    }
