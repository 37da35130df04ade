"""Step `probe`: a gradient of 64 masks under a 3B-shaped Llama in bf16, backends side by side, and a whole solve."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from atmanrl.models.policy import Policy
from atmanrl.plan.estimate import plan
from atmanrl.plan.flops import all_pairs, probe_gradient_flops
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import shape_of
from atmanrl.plan.times import probe_operations
from atmanrl.probe import AdaptiveSolver, PaperSolver
from atmanrl.probe.attention import attention_hook
from atmanrl.probe.lean import torch_attention
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, parameter_bytes, random_policy, ratio, seconds_of

WAYS: tuple[tuple[str, str, int], ...] = (
    ("lean", "layers", 16384), ("lean", "none", 16384), ("lean in PyTorch", "none", 16384), ("lean", "layers", 4096),
    ("lean", "none", 4096), ("eager", "none", 16384), ("sdpa", "none", 16384), ("lean", "layers", 1024),
)  # fmt: skip
"""Attention, what of the layers is compiled, and tokens of a pass, in order of worth."""
TOLERANCE = 0.007
"""Of the adaptive solver, as in the laptop's configuration."""
PAPER = 200
"""Gradients of a rollout that the paper's solver takes."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """The adaptive solver as it is by default on a GPU, then gradients in every way."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    ways = [way for way in WAYS if way[1:] == ("none", 16384)] if args.tiny else WAYS
    with ExitStack() as stack:
        compiled = {way[1] for way in ways}
        policies = {c: stack.enter_context(random_policy(scene, "bfloat16", compile=c)) for c in sorted(compiled)}
        first, weights = policies[ways[0][1]], sum(parameter_bytes(policy.model) for policy in policies.values())
        with record.guarded("adaptive") as found:
            found |= _solve(scene, first, *ways[0][::2])
        for attention, compile, budget in ways:
            called = f"{attention}, compile {compile}, {budget} tokens"
            if record.in_time(called, 1.0 if args.tiny else 8.0):
                with record.guarded(called) as found:
                    found |= _gradient(scene, policies[compile], attention, budget, weights)


def _objective(scene: Scene, policy: Policy, budget: int) -> Objective:
    return Objective(policy.model, scene.targets(), 10.0, policy.pad_id, budget)


@contextmanager
def _attending(policy: Policy, attention: str) -> Iterator[None]:
    backend = attention.split()[0]
    with frozen(policy.model), attention_hook(policy.model, backend):
        with torch_attention() if attention != backend else nullcontext():
            yield


def _gradient(scene: Scene, policy: Policy, attention: str, budget: int, weights: int) -> dict[str, Any]:
    shape = shape_of(policy.model.config)
    with _attending(policy, attention):
        objective = _objective(scene, policy, budget)
        values = torch.full((objective.entries.ragged.total,), -0.4, device=scene.device)
        everyone = torch.arange(scene.rollouts, device=scene.device)
        scene.fresh_peak()
        objective.evaluate(values, everyone)
        seconds = statistics.median(
            seconds_of(lambda: objective.evaluate(values, everyone), scene, min(3, scene.repeats))
        )
    operations = sum(
        probe_gradient_flops(
            shape, target.rows, all_pairs(target.rows, len(target.prompt_ids)), len(target.answer_ids), recompute=False
        )
        for target in scene.targets()
    )
    probe = ProbeSettings(PAPER, budget, PaperSolver.mask_copies)
    settings = RunSettings(
        "random", queries=scene.queries, group=scene.group, max_new_tokens=scene.completion, num_iterations=1,
        minibatch_queries=scene.queries, micro_batch_tokens=budget, weight_bytes=2, compute_bytes=2, probes=(probe,),
    )  # fmt: skip
    planned = plan(shape, settings, scene.hardware, scene.lengths)
    working = planned.memory_by_part["masks and their solver"] + planned.memory_by_part["activations of the probe"]
    by_plan = scene.rollouts * probe_operations(shape, scene.lengths)
    return {
        "gradient_s": seconds,
        "rollout_s_paper": PAPER * seconds / scene.rollouts,
        "share_of_peak_flops": operations / seconds / scene.flops,
        "gradient_s_by_plan": ratio(scene.hardware.compute_seconds(by_plan), seconds),
        "working_bytes_by_plan": ratio(working, max(0, scene.peak() - weights)),
    }


def _solve(scene: Scene, policy: Policy, attention: str, budget: int) -> dict[str, Any]:
    solver = AdaptiveSolver(steps=40) if scene.tiny else AdaptiveSolver(tolerance=TOLERANCE)
    with _attending(policy, attention):
        objective = _objective(scene, policy, budget)
        objective.evaluate(objective.filled(-0.4))  # compiles
        scene.synchronise()
        began = time.perf_counter()
        solution = solver.solve(objective, -0.4)
        scene.synchronise()
    seconds = time.perf_counter() - began
    return {
        "attention": attention, "batch_tokens": budget, "tolerance": solver.tolerance,
        "seconds": seconds, "rollout_s": seconds / scene.rollouts,
        "gradients_a_rollout": float(solution.gradients.float().mean()), "most_gradients": int(solution.gradients.max()),
    }  # fmt: skip
