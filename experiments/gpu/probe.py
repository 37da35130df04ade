"""Step `probe`: a gradient of 64 masks under a 3B-shaped Llama in bf16, backends side by side, and whole solves."""

from __future__ import annotations

import argparse
import statistics
import time
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
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, parameter_bytes, random_policy, ratio, seconds_of

BACKENDS, BUDGETS = ("lean", "sdpa", "eager"), (4096, 16384, 1024)
PAPER = 200
"""Gradients of a rollout that the paper's solver takes."""


def measure(args: argparse.Namespace, record: Record) -> None:
    """Gradients by backend and budget of tokens; the adaptive solver with the fastest of them."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    with random_policy(scene, "bfloat16") as policy:
        best: tuple[float, str, int] | None = None
        for budget in BUDGETS[: 1 if args.tiny else None]:
            for backend in BACKENDS:
                called = f"{backend}, {budget} tokens"
                if record.in_time(called, 1.0 if args.tiny else 12.0):
                    with record.guarded(called) as found:
                        found |= _gradient(scene, policy, backend, budget)
                        best = min(best or (1e9, "", 0), (found["gradient_s"], backend, budget))
        needs = 1.0 if args.tiny or best is None else 40 * best[0]
        if best is not None and record.in_time("adaptive", needs):
            with record.guarded("adaptive") as found:
                found |= _solve(scene, policy, *best[1:])


def _objective(scene: Scene, policy: Policy, budget: int) -> Objective:
    return Objective(policy.model, scene.targets(), 10.0, policy.pad_id, budget)


def _gradient(scene: Scene, policy: Policy, backend: str, budget: int) -> dict[str, Any]:
    shape = shape_of(policy.model.config)
    with frozen(policy.model), attention_hook(policy.model, backend):
        objective = _objective(scene, policy, budget)
        values = torch.full((objective.entries.packing.total,), -0.4, device=scene.device)
        everyone = torch.arange(scene.rollouts, device=scene.device)
        scene.fresh_peak()
        objective.evaluate(values, everyone)
        seconds = statistics.median(
            seconds_of(lambda: objective.evaluate(values, everyone), scene, min(3, scene.repeats))
        )
    operations = sum(
        probe_gradient_flops(
            shape, target.rows, all_pairs(target.rows, len(target.prompt)), target.answer, recompute=False
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
        "working_bytes_by_plan": ratio(working, max(0, scene.peak() - parameter_bytes(policy.model))),
    }


def _solve(scene: Scene, policy: Policy, backend: str, budget: int) -> dict[str, Any]:
    solver = AdaptiveSolver(steps=40) if scene.tiny else AdaptiveSolver()
    with frozen(policy.model), attention_hook(policy.model, backend):
        objective = _objective(scene, policy, budget)
        scene.synchronise()
        began = time.perf_counter()
        solution = solver.solve(objective, -0.4)
        scene.synchronise()
    gradients = float(solution.gradients.float().mean())
    seconds = (time.perf_counter() - began) / scene.rollouts
    return {"attention": backend, "batch_tokens": budget, "rollout_s": seconds, "gradients_a_rollout": gradients}
