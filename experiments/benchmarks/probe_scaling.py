"""Time and memory of one gradient of the probe against the length of the reasoning and the number of rollouts.

    python -m experiments.benchmarks.probe_scaling --json experiments/benchmarks/results/probe_scaling.json

A Llama of the laptop policy's shape with random weights, prompts of 64 tokens, answers of 4. Each point is measured in a
process of its own: the median of a few gradients, and the peak memory above the loaded model. `scores_mib` is what the
probabilities of all layers and heads would take at once, layers x heads x rows x keys: memory must not grow with it.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from atmanrl.probe.attention import attention_hook
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target
from experiments.benchmarks.memory import peak_mib

PROMPT, DELIMITER, ANSWER, VOCABULARY = 64, 2, 4, 768
LAYERS, HEADS, HIDDEN = 4, 4, 128
LENGTHS, BATCHES = (64, 128, 256, 512, 1024), (1, 8)


def measure(length: int, batch: int, backend: str, repeats: int) -> dict[str, float]:
    """One point: seconds and MiB of a gradient of `batch` rollouts of `length` reasoning tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=352, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=2048,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, VOCABULARY, (count,), generator=draw).tolist())

    prompt = tokens(PROMPT)
    targets = [Target(prompt, tokens(length), tokens(DELIMITER), tokens(ANSWER)) for _ in range(batch)]
    with frozen(model), attention_hook(model, backend):
        warm = Objective(model, [Target(prompt, tokens(8), tokens(DELIMITER), tokens(ANSWER))], 10.0, 0, 1024)
        warm.evaluate(torch.full((warm.entries.ragged.total,), -0.4), torch.arange(1))
        objective = Objective(model, targets, 10.0, 0, batch_tokens=1024)
        values = torch.full((objective.entries.ragged.total,), -0.4)
        peak = peak_mib(lambda: objective.evaluate(values, torch.arange(batch)))
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            objective.evaluate(values, torch.arange(batch))
            seconds.append(time.perf_counter() - began)
    return {
        "seconds": statistics.median(seconds),
        "seconds_a_rollout": statistics.median(seconds) / batch,
        "peak_mib": peak,
        "scores_mib": LAYERS * HEADS * targets[0].rows * (PROMPT + targets[0].rows) * 4 / 2**20,
        "mask_mib": objective.entries.ragged.total / batch * 4 / 2**20,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="The probe's time and memory against length and batch.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backends", nargs="+", default=["lean", "eager", "sdpa"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--point", nargs=3, metavar=("LENGTH", "BATCH", "BACKEND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.point:
        length, batch, backend = args.point
        print(json.dumps(measure(int(length), int(batch), backend, args.repeats)))
        return
    points: list[dict[str, Any]] = []
    for backend in args.backends:
        for batch in BATCHES:
            for length in LENGTHS:
                here = ["--point", str(length), str(batch), backend, "--repeats", str(args.repeats)]
                command = [sys.executable, "-m", "experiments.benchmarks.probe_scaling", *here]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = {"backend": backend, "batch": batch, "cot_tokens": length, **json.loads(done.stdout)}
                print({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
                points.append(found)
    if args.json:
        results = {
            "command": "python -m experiments.benchmarks.probe_scaling",
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
            "points": points,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
