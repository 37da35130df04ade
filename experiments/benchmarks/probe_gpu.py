"""The probe on a GPU: a Llama of 3B's shape with random weights in bf16, 8 problems x 8 rollouts of 200 + 150 tokens.

    python -m experiments.benchmarks.probe_gpu --json experiments/benchmarks/results/probe_gpu.json

Attention backends side by side, at several token budgets: seconds of one gradient of all 64 masks, seconds of a rollout for
200 and for 25 gradients, the share of the GPU's peak that the needed operations are (model FLOP utilisation), peak memory.
`--layers 2 --hidden 128 --device cpu` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
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

PROMPT, COT, DELIMITER, ANSWER = 200, 150, 2, 3
PROBLEMS, GROUP = 8, 8


def model(args: argparse.Namespace) -> LlamaForCausalLM:
    """Llama-3.2-3B's shape (28 layers, 3072, 24 heads, 8 key-value heads, 128k tokens) unless told otherwise."""
    config = LlamaConfig(
        vocab_size=args.vocabulary, hidden_size=args.hidden, intermediate_size=args.hidden * 8 // 3, head_dim=128,
        num_hidden_layers=args.layers, num_attention_heads=args.hidden // 128,
        num_key_value_heads=max(1, args.hidden // 384), max_position_embeddings=4096, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device(args.device):
        made = LlamaForCausalLM._from_config(config, dtype=getattr(torch, args.dtype))
    return made.eval()


def targets(vocabulary: int) -> list[Target]:
    """64 rollouts of 8 problems, whose reasonings are 100 to 200 tokens long."""
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(4, vocabulary, (count,), generator=draw).tolist())

    made = []
    for _ in range(PROBLEMS):
        prompt = tokens(PROMPT)
        for _ in range(GROUP):
            cot = int(torch.randint(COT - 50, COT + 51, (), generator=draw))
            made.append(Target(prompt, tokens(cot + DELIMITER + ANSWER), cot, ANSWER))
    return made


def operations(net: LlamaForCausalLM, rollouts: list[Target]) -> float:
    """Floating-point operations that one gradient of all masks needs: forward, and backward to the activations.

    Embeddings and head are left out, attention is counted; padding, prompts and recomputation are not.
    """
    c = net.config
    weights = sum(p.numel() for name, p in net.named_parameters() if "layers" in name)
    total = 0.0
    for t in rollouts:
        keys = len(t.prompt) + t.rows / 2
        attention = 4 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * keys
        total += t.rows * (2 * (2 * weights) + 3 * attention)
    return total


def measure(net: LlamaForCausalLM, backend: str, budget: int, repeats: int, peak: float) -> dict[str, Any]:
    """One backend at one token budget."""
    device, rollouts = net.device, targets(net.config.vocab_size)
    cuda = device.type == "cuda"
    with frozen(net), attention_hook(net, backend):
        objective = Objective(net, rollouts, 10.0, 0, budget)
        values = torch.full((objective.entries.packing.total,), -0.4, device=device)
        everyone = torch.arange(len(rollouts), device=device)
        objective.evaluate(values, everyone)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            objective.evaluate(values, everyone)
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds)
    return {
        "backend": backend,
        "batch_tokens": budget,
        "gradient_s": middle,
        "min_s": min(seconds),
        "max_s": max(seconds),
        "rollout_s_200_gradients": 200 * middle / len(rollouts),
        "rollout_s_25_gradients": 25 * middle / len(rollouts),
        "model_flop_utilisation": operations(net, rollouts) / middle / (peak * 1e12),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="The probe on a GPU, attention backends side by side.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--backends", nargs="+", default=["lean", "sdpa", "eager"])
    parser.add_argument("--budgets", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--peak", type=float, default=989.0, help="the GPU's peak in TFLOP/s (H100 and H200, dense bf16: 989)"
    )
    args = parser.parse_args()
    net = model(args)
    found = []
    for backend in args.backends:
        for budget in args.budgets:
            found.append(measure(net, backend, budget, args.repeats, args.peak))
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in found[-1].items()}, flush=True)
    if args.json:
        cuda = args.device.startswith("cuda")
        results = {
            "command": "python -m experiments.benchmarks.probe_gpu",
            "machine": torch.cuda.get_device_name() if cuda else platform.machine(),
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "transformers")}},
            "model": f"{args.layers} layers, {args.hidden} dimensions, {args.dtype}, vocabulary {args.vocabulary}",
            "peak_tflops": args.peak,
            "points": found,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
