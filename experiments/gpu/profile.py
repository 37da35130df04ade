"""Step `profile`: which kernels the time goes to, in a gradient of the probe at 3B's shape and in an update at 1B's."""

from __future__ import annotations

import argparse
import gc
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from atmanrl.probe.attention import attention_hook
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from experiments.benchmarks.trainers import Update, atmanrl_trainer
from experiments.gpu.record import Record
from experiments.gpu.scene import LLAMA_1B, TINY, Scene, folder, random_policy
from experiments.gpu.trl import draw_weights, setting_of

KERNELS = 25
"""Kernels and operations that are kept, the longest first."""
NAME = 90
"""Characters of a kernel's name."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """Both, each guarded."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with record.guarded("update") as figures:
        figures |= _update(scene)
    _free(scene)
    for compile in ("none",) if args.tiny else ("layers", "none"):
        if record.in_time(called := f"probe, compile {compile}", 1.0 if args.tiny else 20.0):
            with record.guarded(called) as figures:
                figures |= _probe(scene, compile)
            _free(scene)


def _free(scene: Scene) -> None:
    gc.collect()
    if scene.cuda:
        torch.cuda.empty_cache()


def _probe(scene: Scene, compile: str) -> dict[str, Any]:
    with random_policy(scene, "bfloat16", compile=compile) as policy:
        with frozen(policy.model), attention_hook(policy.model, "lean"):
            objective = Objective(policy.model, scene.targets(), 10.0, policy.pad_id, 16384)
            values = objective.filled(-0.4)
            for _ in range(2):
                objective.evaluate(values)
            with _profiled(scene) as figures:
                objective.evaluate(values)
    return figures


def _update(scene: Scene) -> dict[str, Any]:
    """The last of some updates, by its optimizer steps alone: rollouts are sampled before it."""
    figures: dict[str, Any] = {}
    with folder(TINY if scene.tiny else LLAMA_1B) as place, tempfile.TemporaryDirectory() as aside:
        draw_weights(place, scene)
        setting = setting_of(place, scene)
        from atmanrl.grpo import GRPOModule

        own, seen = GRPOModule._update, []

        def update(module: Any, experience: Any) -> dict[str, float]:
            seen.append(experience)
            if len(seen) < setting.updates:
                return own(module, experience)
            with _profiled(scene) as profiled:
                metrics = own(module, experience)
            figures.update(profiled)
            return metrics

        GRPOModule._update = update  # type: ignore[method-assign]
        try:
            atmanrl_trainer(setting, aside, _ignore)()
        finally:
            GRPOModule._update = own  # type: ignore[method-assign]
    return figures


def _ignore(update: Update) -> None:
    """Nothing is watched."""


@contextmanager
def _profiled(scene: Scene) -> Iterator[dict[str, Any]]:
    """Fill in a dictionary with seconds, the device's share of them, and what took longest on the device and the host."""
    figures: dict[str, Any] = {}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if scene.cuda else [])]
    scene.synchronise()
    began = time.perf_counter()
    with profile(activities=activities) as profiler:
        yield figures
        scene.synchronise()
        seconds = time.perf_counter() - began
    events = profiler.key_averages()
    on_device = sorted((e for e in events if e.device_type.name == "CUDA"), key=lambda e: -e.self_device_time_total)
    on_host = sorted((e for e in events if e.device_type.name == "CPU"), key=lambda e: -e.self_cpu_time_total)
    figures["seconds"] = seconds
    figures["device_seconds"] = sum(event.self_device_time_total for event in on_device) / 1e6
    figures["launches"] = sum(event.count for event in on_device)
    figures["kernels"] = [
        [e.key[:NAME], e.count, round(e.self_device_time_total / 1e3, 2)] for e in on_device[:KERNELS]
    ]
    figures["host"] = [[e.key[:NAME], e.count, round(e.self_cpu_time_total / 1e3, 2)] for e in on_host[:KERNELS]]
