"""How fast does `HFSampler` draw tokens on this machine's CPU: static cache and inductor against the dynamic cache?

    python -m experiments.benchmarks.sampling --json experiments/benchmarks/results/sampling.json

The reference is `HFSampler()` as it is by default, with a cache that grows. In each repeat all variants draw the same
rollouts of the laptop policy, one after the other, and a variant's ratio is its tokens a second over the reference's in that
repeat. Two settings: the laptop run's, in which completions end by themselves, and longer ones in which nothing ends. Each
variant draws once before, which is when inductor compiles. Ratios above 1 are faster; what they are on a GPU is for
`experiments.gpu.checklist` to say.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.rollouts import Completion, HFSampler, SamplingOptions
from atmanrl.rollouts.seeds import uniforms
from atmanrl.tasks import WordProblems

POLICY = Path(__file__).parents[1] / "laptop/policy"
REFERENCE = "dynamic"
SETTINGS: dict[str, dict[str, Any]] = {
    "laptop": {"queries": 8, "group": 8, "max_new_tokens": 224, "ends": True},
    "long": {"queries": 4, "group": 8, "max_new_tokens": 512, "ends": False},
}
"""Queries and rollouts of each as in `configs/laptop.yaml`; the policy's context has 1,024 tokens."""


def samplers() -> dict[str, HFSampler]:
    """The variants that this machine can run, the reference first; inductor needs a C++ compiler."""
    found = {REFERENCE: HFSampler(), "static": HFSampler(cache="static")}
    if any(shutil.which(compiler) for compiler in (os.environ.get("CXX", ""), "g++", "clang++")):
        found["static+inductor"] = HFSampler(cache="static", compile="default")
    return found


def numbers(queries: int, group: int, limit: int) -> Tensor:
    """Random numbers `[Q, G, T]`, the same for every variant."""
    return torch.stack([
        torch.stack([uniforms(0, "train", 1, q, s, limit) for s in range(group)]) for q in range(queries)
    ])  # fmt: skip


def measure(setting: dict[str, Any], repeats: int) -> dict[str, Any]:
    """All variants in one setting: tokens a second of every repeat, and their ratios to the reference."""
    policy = Policy(str(POLICY)).build()
    if not setting["ends"]:
        policy.eos_ids = ()
    task = WordProblems()
    problems = task.problems("train")[: setting["queries"]]
    prompts = [policy.encode_prompt(task.prompt(problem)) for problem in problems]
    uniform = numbers(setting["queries"], setting["group"], setting["max_new_tokens"])
    options = SamplingOptions(setting["max_new_tokens"])
    variants = samplers()
    rates: dict[str, list[float]] = {name: [] for name in variants}
    drawn: dict[str, list[Completion]] = {}
    first: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for name, sampler in variants.items():
            began = time.perf_counter()
            drawn[name] = sum(sampler.sample(policy, prompts, uniform, options), [])
            seconds = time.perf_counter() - began
            if repeat:
                rates[name].append(sum(len(each.ids) for each in drawn[name]) / seconds)
            else:
                first[name] = seconds
    return {
        "setting": setting,
        "tokens": sum(len(each.ids) for each in drawn[REFERENCE]),
        "variants": {
            name: {
                "tokens_a_second": rates[name],
                "ratio": spread([a / b for a, b in zip(rates[name], rates[REFERENCE], strict=True)]),
                "seconds_of_the_first_call": first[name],
                "same_rollouts": sum(a.ids == b.ids for a, b in zip(drawn[name], drawn[REFERENCE], strict=True)),
            }
            for name in variants
        },
        "rollouts": len(drawn[REFERENCE]),
    }


def spread(ratios: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(ratios), "least": min(ratios), "greatest": max(ratios)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Tokens a second of HFSampler's variants, as ratios.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    args = parser.parse_args()
    results: dict[str, Any] = {
        "command": "python -m experiments.benchmarks.sampling",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
        "settings": {},
    }
    for name in args.settings:
        results["settings"][name] = found = measure(SETTINGS[name], args.repeats)
        for variant, figures in found["variants"].items():
            rate, ratio = statistics.median(figures["tokens_a_second"]), figures["ratio"]
            first = figures["seconds_of_the_first_call"]
            print(
                f"{name}, {variant}: {rate:,.0f} tokens/s, {ratio['median']:.2f} of {REFERENCE} "
                f"({ratio['least']:.2f} to {ratio['greatest']:.2f}), first call {first:.0f} s, "
                f"{figures['same_rollouts']} of {found['rollouts']} rollouts the same",
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
