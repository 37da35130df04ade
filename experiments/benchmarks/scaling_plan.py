"""What Llamas of 3B, 8B and 70B would take on 8, 64 and 512 GPUs, by the plan: the second table of `docs/scaling.md`.

    python -m experiments.benchmarks.scaling_plan

`configs/atmanrl.yaml` as it is (8 problems x 8 completions a GPU), on H100s of 80 GB, but for what a model needs to fit:
activation checkpointing, and smaller passes. No weights are loaded, and nothing is downloaded.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from transformers import LlamaConfig

from atmanrl.commands.planned_run import PlannedRun
from atmanrl.plan.estimate import USABLE, Plan, plan
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import RunSettings, settings_of
from atmanrl.plan.shape import ModelShape, shape_of

SIZES = {
    "3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
           "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}  # fmt: skip
DEVICES = (8, 64, 512)
LENGTHS = Lengths(prompt=160.0, completion=250.0)
LINKS = {8: 200e9, 64: 50e9, 512: 50e9}
"""Bytes a second between a GPU and the others: NVLink within a node as NCCL gathers over it, 400 Gbit/s between nodes."""


def hardware(devices: int) -> Hardware:
    """H100 SXMs: 989 TFLOP/s in bf16, 3.35 TB/s."""
    return Hardware(devices, 80e9, 989e12, 3.35e12, LINKS[devices])


def shape(name: str) -> ModelShape:
    """A Llama 3 of some size, as its configuration has it."""
    config = LlamaConfig(
        **SIZES[name], num_key_value_heads=8, head_dim=128, vocab_size=128256, max_position_embeddings=131072
    )
    return shape_of(config)


def settings() -> RunSettings:
    """Those of the config, whose problems are GSM8K's."""
    run = PlannedRun(["--config=configs/atmanrl.yaml"])
    return settings_of(run.model, run.datamodule, run.trainer, run.strategy)


def row(name: str, devices: int, planned: Plan) -> str:
    """A row of the table in Markdown."""
    peaks, seconds = planned.peak_by_phase, planned.seconds_by_phase
    parts = (f"{seconds[phase]:,.0f}" for phase in ("sampling", "probing", "update"))
    worst, slowest = (
        max(peaks, key=lambda p: peaks[p]),
        max(("sampling", "probing", "update"), key=lambda p: seconds[p]),
    )
    gather = "layer" if planned.settings.by_layer else "model"
    fits = f"{planned.peak / 1e9:,.0f} ({worst})" + ("" if planned.fits else " **too much**")
    return f"| {name} | {devices} | {gather} | {fits} | {' | '.join(parts)} | {slowest} |"


def main() -> int:
    """Print the table."""
    base = settings()
    print(f"A device may fill {USABLE:.0%} of its memory.")
    heads = ("model", "GPUs", "gathered", "peak, GB", "sampling, s", "probing, s", "update, s", "limit")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in SIZES:
        model = shape(name)
        probes = tuple(replace(each, batch_tokens=1024) if name == "70B" else each for each in base.probes)
        for devices in DEVICES:
            for by_layer in (False, True):
                changed = replace(
                    base, by_layer=by_layer, probes=probes, checkpointing=name != "3B", val_interval=0, val_problems=0
                )
                print(row(name, devices, plan(model, changed, hardware(devices), LENGTHS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
