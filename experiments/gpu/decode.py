"""Step `decode`: milliseconds a sampled token of a 3B-shaped Llama in bf16, for 64 rollouts, by every way of decoding."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo

from atmanrl.models.devices import cudnn_attention
from atmanrl.models.policy import Policy
from atmanrl.plan.settings import NO_LIMIT, RunSettings
from atmanrl.plan.shape import shape_of
from atmanrl.plan.times import sampling_seconds
from atmanrl.rollouts import HFSampler, Sampler, SamplingOptions
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, random_policy, ratio, seconds_of

WAYS: dict[str, dict[str, Any]] = {
    "dynamic": {"cache": "dynamic"},
    "graph": {"cache": "static", "compile": "cudagraphs"},
    "compiled": {"cache": "static", "compile": "default"},
    "compiled graph": {"cache": "static", "compile": "reduce-overhead"},
    "static": {"cache": "static"},
}
"""Options of `HFSampler`, in order of worth."""
WITH_CUDNN = ("dynamic", "graph")
SHORT, LONG = 16, 80
"""Tokens of two runs: their difference is free of the prompt and of what happens once."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """Each way with cuDNN's attention off, some with it on."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    short, long = (2, 6) if args.tiny else (SHORT, LONG)
    torch._dynamo.config.disable = not scene.cuda  # inductor takes a minute on a CPU, and its speed says nothing
    with random_policy(scene, "bfloat16") as policy:
        for name, cudnn in [*((name, False) for name in WAYS), *((name, True) for name in WITH_CUDNN)]:
            called = f"{name}, cuDNN {'on' if cudnn else 'off'}"
            if name == "graph" and not scene.cuda:
                record.skip(called, "CUDA graphs need a CUDA device")
            elif record.in_time(called, 1.0 if args.tiny else 20.0):
                with record.guarded(called) as found, cudnn_attention(cudnn):
                    found |= _one(scene, policy, HFSampler(**WAYS[name]), short, long)
                    if called == "dynamic, cuDNN off":
                        found["ms_a_token_by_plan"] = ratio(_planned_ms(scene, policy, long), found["ms_a_token"])


def _one(scene: Scene, policy: Policy, sampler: Sampler, short: int, long: int) -> dict[str, Any]:
    def run(count: int) -> float:
        uniforms = torch.rand(scene.queries, scene.group, count, generator=torch.Generator().manual_seed(0))
        options = SamplingOptions(count)
        return seconds_of(lambda: sampler.sample(policy, scene.prompts(), uniforms, options), scene, 1)[0]

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


def _planned_ms(scene: Scene, policy: Policy, count: int) -> float:
    """A token's milliseconds by the plan, for completions of so many tokens each, with the prompts' share."""
    settings = RunSettings(
        "random", queries=scene.queries, group=scene.group, max_new_tokens=count, num_iterations=1,
        minibatch_queries=scene.queries, micro_batch_tokens=NO_LIMIT, weight_bytes=2, compute_bytes=2,
    )  # fmt: skip
    lengths = replace(scene.lengths, completion=float(count))
    shape = shape_of(policy.model.config)
    return 1000 * sampling_seconds(shape, settings, scene.hardware, lengths, scene.queries, scene.group) / count
