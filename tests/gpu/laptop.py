"""The laptop policy on any device and in any precision, with rollouts of real problems, and cosines of gradients."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from conftest import ROOT
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import Rollout, RolloutBatch, traces
from atmanrl.tasks import DELIMITER, WordProblems

FOLDER = ROOT / "experiments/laptop/policy"
PRECISIONS = ("float32", "bfloat16", "float16", "autocast")
"""Dtypes of the weights; `autocast` has float32 weights and computes in bf16."""


@contextmanager
def policy_in(precision: str, device: torch.device, folder=FOLDER) -> Iterator[Policy]:
    """The policy within the context in which it computes."""
    policy = Policy(str(folder), dtype="float32" if precision == "autocast" else precision).build()
    policy.eval().to(device)
    with torch.autocast(device.type, torch.bfloat16) if precision == "autocast" else nullcontext():
        yield policy


def rollouts(policy: Policy, problems: int = 3, group: int = 2, equal: bool = False) -> RolloutBatch:
    """Groups of the task's own solutions, cut short at different places; `equal` asks one problem only."""
    task = WordProblems(train_size=problems, test_size=1, instruction="")
    made: list[Rollout] = []
    for row, asked in enumerate(task.problems("train")):
        problem = task.problems("train")[0] if equal else asked
        words = (problem.solution or "").split()
        for sample in range(group):
            cot = " ".join(words[: len(words) - sample])
            trace = {
                "prompt": task.prompt(problem),
                "completion": f" {cot}\n{DELIMITER} {problem.gold}",
                "gold": problem.gold,
            }
            made.append(traces.from_json(trace, row, policy, "laptop"))
            made[-1].sample, made[-1].correct = sample, sample == 0
            made[-1].completion = replace(made[-1].completion, logprobs=[-1.0] * len(made[-1].completion.ids))
    return RolloutBatch(made, group)


def targets(policy: Policy, equal: bool = False) -> list[Target]:
    """What the probe makes of four whole solutions."""
    return [target(rollout, policy.tokenizer) for rollout in rollouts(policy, 4, 1, equal).rollouts]


def cosine(ours: Tensor, theirs: Tensor) -> float:
    """Of two gradients."""
    ours, theirs = (each.detach().cpu().double().flatten() for each in (ours, theirs))
    return float(torch.dot(ours, theirs) / (ours.norm() * theirs.norm()))
