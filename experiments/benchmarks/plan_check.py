"""How far `atmanrl plan` is from what is measured here, on a CPU, in float32.

    python -m experiments.benchmarks.plan_check --json experiments/benchmarks/results/plan_check.json

For three Llamas with random weights: bytes of weights, gradients and AdamW's moments; the most memory that a forward and
backward pass of the update, and a gradient of the probe, take above what stood there before; seconds of sampling, of a
probe's gradient and of an update's step. The machine is described to the plan by three measurements alone, taken anew for
each shape: the FLOP/s of one matrix product, the bandwidth of one copy (efficiency 1), and the time of a kernel, by sampling
from a model that is too small to compute anything. Times are processor time of one
thread, the shortest of a few, so that other programs on the machine disturb them little. Every figure is given as
predicted / measured.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import scores_at
from atmanrl.plan import memory
from atmanrl.plan.estimate import plan
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.launches import forward_launches
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import shape_of
from atmanrl.plan.times import probe_operations, sampling_seconds, update_operations
from atmanrl.probe.attention import attention_hook
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.solvers import PaperSolver
from atmanrl.probe.target import Target
from atmanrl.rollouts.sampling import sample
from experiments.benchmarks.memory import peak_mib

BLANK = "experiments/laptop/blank"
SHAPES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "head_dim": 32},
    "small": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "head_dim": 64},
    "wide vocabulary": {
        "hidden_size": 384, "intermediate_size": 1056, "num_hidden_layers": 6, "head_dim": 96, "vocab_size": 16384,
    },
}  # fmt: skip
ANSWER, DELIMITER = 3, 2
M_MMAP_THRESHOLD = -3


@dataclass(frozen=True)
class Work:
    """An update's rollouts, all of the same lengths.

    Attributes:
        prompt: tokens of a prompt.
        completion: tokens of a completion.
        queries: problems.
        group: rollouts of each.

    Example:
        `Work(prompt=64, completion=96, queries=4, group=4)`
    """

    prompt: int = 64
    completion: int = 96
    queries: int = 4
    group: int = 4

    @property
    def rollouts(self) -> int:
        """All of them."""
        return self.queries * self.group


def policy_of(changes: dict[str, Any]) -> Policy:
    """A policy with random weights of some shape, whose completions never come to an end."""
    config = AutoConfig.from_pretrained(BLANK)
    config.update(changes)
    if hasattr(config, "layer_types"):
        config.layer_types = None
    torch.manual_seed(0)
    policy = Policy.around(AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(BLANK))
    policy.eos_ids = (-1,)
    return policy


def best_seconds(work: Callable[[], Any], repeats: int) -> float:
    """The shortest processor time; a first call does not count."""
    work()
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def machine(repeats: int) -> Hardware:
    """FLOP/s of a product of two 1024 x 1024 matrices, bytes/s of reading half a copy of 64 MiB, seconds of a kernel."""
    a = torch.randn(1024, 1024)
    speed = 2 * 1024**3 / best_seconds(lambda: a @ a, 5 * repeats)
    b = torch.randn(2**24)
    bandwidth = 2 * b.nbytes / best_seconds(lambda: b.clone(), 5 * repeats)
    nothing = policy_of({"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4, "head_dim": 2})
    steps = torch.zeros(1, 1, 96)
    launch = best_seconds(lambda: sample(nothing, [[3]], steps), repeats) / steps.numel()
    launch /= forward_launches(shape_of(nothing.model.config))
    return Hardware(1, 2**40, speed, bandwidth, efficiency=1.0, launch_seconds=launch)


def ratio(predicted: float, measured: float) -> dict[str, float]:
    """Both, and how they compare."""
    return {"predicted": predicted, "measured": measured, "predicted/measured": round(predicted / measured, 3)}


def above(work: Callable[[], Any]) -> float:
    """Bytes that `work` needs at its worst; freed memory goes back to the system first."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return peak_mib(work) * 2**20


def check(
    changes: dict[str, Any], repeats: int, work: Work | None = None, hardware: Hardware | None = None
) -> dict[str, Any]:
    """Predict and measure everything of one shape, for some rollouts, on a machine that is measured first if need be."""
    policy, work, hardware = policy_of(changes), work or Work(), hardware or machine(repeats)
    model, shape = policy.model, shape_of(policy.model.config)
    settings = RunSettings(
        "random", queries=work.queries, group=work.group, max_new_tokens=work.completion, num_iterations=1,
        minibatch_queries=work.queries,
        micro_batch_tokens=1 << 30,
        probes=(ProbeSettings(1, 1 << 30, PaperSolver.mask_copies),),
    )  # fmt: skip
    lengths = Lengths(work.prompt, work.completion, ANSWER, DELIMITER)
    planned = plan(shape, settings, hardware, lengths)
    found: dict[str, Any] = {
        "shape": changes,
        "flops_per_second": hardware.flops_per_second,
        "bandwidth_bytes_per_second": hardware.bandwidth_bytes_per_second,
        "launch_seconds": hardware.launch_seconds,
        "parameters": ratio(shape.parameters, sum(p.numel() for p in model.parameters())),
    }
    found |= _update(policy, settings, planned, hardware, lengths, repeats, work)
    found |= _probe(policy, settings, planned, hardware, lengths, repeats, work)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, 700, (work.queries, work.prompt), generator=generator).tolist()
    uniform = torch.rand(work.queries, work.group, work.completion, generator=generator)
    seconds = best_seconds(lambda: sample(policy, prompts, uniform), repeats)
    caches = planned.memory_by_part["caches of sampling"] + planned.memory_by_part["logits of sampling"]
    found["bytes of sampling"] = ratio(caches, above(lambda: sample(policy, prompts, uniform)))
    found["seconds of sampling"] = ratio(
        sampling_seconds(shape, settings, hardware, lengths, work.queries, work.group), seconds
    )
    return found


def _update(
    policy: Policy, settings: RunSettings, planned: Any, hardware: Hardware, lengths: Lengths, repeats: int,
    work: Work,
) -> dict[str, Any]:  # fmt: skip
    model, shape = policy.model, planned.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    ids = torch.randint(
        3, 700, (work.rollouts, work.prompt + work.completion), generator=torch.Generator().manual_seed(1)
    )
    before = torch.zeros_like(ids, dtype=torch.bool)
    before[:, work.prompt - 1 : -1] = True

    def passes() -> None:
        # log-probabilities and entropy as GRPOModule takes them
        chosen, _ = scores_at(model, before, ids[:, work.prompt :].flatten(), input_ids=ids, use_cache=False)
        (-chosen.mean()).backward()

    def step() -> None:
        passes()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    step()
    held = sum(p.nbytes + (0 if p.grad is None else p.grad.nbytes) for p in model.parameters())
    held += sum(s.nbytes for state in optimizer.state.values() for s in state.values() if s.ndim)
    standing = planned.resident + planned.memory_by_part["gradients"]
    worst = planned.memory_by_part["activations of the update"] + planned.memory_by_part["logits of the update"]
    return {
        "bytes of weights, gradients and moments": ratio(standing, held),
        "bytes of an update's pass": ratio(worst, above(passes)),
        "seconds of an update": ratio(
            hardware.compute_seconds(update_operations(shape, settings, lengths)), best_seconds(step, repeats)
        ),
    }


def _probe(
    policy: Policy, settings: RunSettings, planned: Any, hardware: Hardware, lengths: Lengths, repeats: int,
    work: Work,
) -> dict[str, Any]:  # fmt: skip
    model, generator = policy.model, torch.Generator().manual_seed(2)
    prompts = torch.randint(3, 700, (work.queries, work.prompt), generator=generator).tolist()
    tails = torch.randint(3, 700, (work.rollouts, work.completion), generator=generator).tolist()
    rest = DELIMITER + ANSWER
    targets = [
        Target(tuple(prompts[i // work.group]), tuple(tail[:-rest]), tuple(tail[-rest:-ANSWER]), tuple(tail[-ANSWER:]))
        for i, tail in enumerate(tails)
    ]
    with frozen(model), attention_hook(model, "lean"):
        objective = Objective(model, targets, 10.0, policy.pad_id, 1 << 30)
        values = torch.full((objective.entries.ragged.total,), -0.4)
        everyone = torch.arange(work.rollouts)

        def gradient() -> None:
            objective.evaluate(values, everyone)

        gradient()
        # a pass keeps the gradient, its part, the values in the pass, and the masks as matrices
        masks = (
            memory.mask_bytes(objective.entries.ragged.total, 1, 3)
            + 2 * work.rollouts * work.completion**2 * memory.FP32
        )
        predicted = planned.memory_by_part["activations of the probe"] + masks
        operations = work.rollouts * probe_operations(planned.model, lengths)
        return {
            "bytes of a probe's gradient": ratio(predicted, above(gradient)),
            "seconds of a probe's gradient": ratio(
                hardware.compute_seconds(operations), best_seconds(gradient, repeats)
            ),
        }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="Compare plans with measurements on this machine.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, 1 << 16)  # what is freed leaves the process
    found = {
        "command": "python -m experiments.benchmarks.plan_check",
        "machine": f"{platform.machine()}, 1 thread",
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "work": asdict(Work()),
        "shapes": {name: check(changes, given.repeats) for name, changes in SHAPES.items()},
    }
    ratios: dict[str, list[float]] = {}
    for shape in found["shapes"].values():
        for name, value in shape.items():
            if isinstance(value, dict) and name != "shape":
                ratios.setdefault(name, []).append(value["predicted/measured"])
    found["predicted/measured"] = ratios
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    for name, values in ratios.items():
        print(f"{name:<42}" + "  ".join(f"{value:6.2f}" for value in values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
