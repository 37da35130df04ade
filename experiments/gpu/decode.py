"""Step `decode`: milliseconds a sampled token of a 3B-shaped Llama in bf16, for 64 rollouts, by every way of decoding."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from atmanrl.devices import cudnn_attention
from atmanrl.plan.estimate import sampling_seconds
from atmanrl.plan.settings import RunSettings
from atmanrl.plan.shape import shape_of
from atmanrl.policy import Policy
from atmanrl.rollouts.sampling import sample
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, random_policy, ratio, seconds_of

Decode = Callable[[Policy, list[list[int]], torch.Tensor], Any]
WAYS: dict[str, Decode] = {"dynamic": sample}
SHORT, LONG = 16, 80
"""Tokens of two runs: their difference is free of the prompt and of what happens once."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """Each way with cuDNN's attention off and, for fewer tokens, on."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    short, long = (2, 6) if args.tiny else (SHORT, LONG)
    with random_policy(scene, "bfloat16") as policy:
        settings = RunSettings(
            "random", weight_bytes=2, compute_bytes=2, queries=scene.queries, group=scene.group, max_new_tokens=long
        )
        shape = shape_of(policy.model.config)
        planned = sampling_seconds(shape, settings, scene.hardware, scene.lengths, scene.queries, scene.group) / long
        for cudnn in (False, True):
            for name, decode in WAYS.items():
                called = f"{name}, cuDNN {'on' if cudnn else 'off'}"
                if record.in_time(called, 1.0 if args.tiny else 15.0):
                    with record.guarded(called) as found, cudnn_attention(cudnn):
                        found |= _one(scene, policy, decode, short, long)
                        if not cudnn and name == "dynamic":
                            found["ms_a_token_by_plan"] = ratio(1000 * planned, found["ms_a_token"])


def _one(scene: Scene, policy: Policy, decode: Decode, short: int, long: int) -> dict[str, Any]:
    def run(count: int) -> float:
        uniform = torch.rand(scene.queries, scene.group, count, generator=torch.Generator().manual_seed(0))
        return seconds_of(lambda: decode(policy, scene.prompts(), uniform), scene, 1)[0]

    scene.fresh_peak()
    first = run(long)  # compiles, captures, plans
    seconds = {count: min(run(count) for _ in range(2)) for count in (short, long)}
    each = (seconds[long] - seconds[short]) / (long - short)
    return {
        "ms_a_token": 1000 * each,
        "seconds_of_250_tokens": seconds[short] + each * (250 - short),
        "first_run_s": first,
        "later_run_s": seconds[long],
        "peak_gib": scene.peak() / 2**30,
    }
