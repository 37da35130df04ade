"""One method in a process of its own: its attributions, their scores, its time and its memory."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from atmanrl.io.files import atomic_write
from atmanrl.models.policy import Policy
from experiments.benchmarks.attribution import traces
from experiments.benchmarks.attribution.methods import METHODS
from experiments.benchmarks.attribution.scoring import score
from experiments.benchmarks.memory import peak_mib


def main(arguments: Sequence[str] | None = None) -> None:
    """Attribute, score and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--traces", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--each", type=int)
    args = parser.parse_args(arguments)
    torch.manual_seed(0)
    method = METHODS[args.method]
    policy = Policy(args.model, attn_implementation="eager" if method.eager else None).build()
    chosen = traces.usable(traces.read(args.traces, policy, args.limit, args.each), policy)
    attribute = method.make(policy)
    longest = max(chosen, key=lambda trace: len(trace.explained))
    mib = peak_mib(lambda: attribute([longest.explained]))  # which also warms it up
    began, busy = time.perf_counter(), time.process_time()
    attributions = attribute([trace.explained for trace in chosen])
    seconds, processor_seconds = time.perf_counter() - began, time.process_time() - busy
    ranked = [scores[: trace.length] for trace, scores in zip(chosen, attributions, strict=True)]
    result = {
        "seconds_a_trace": seconds / len(chosen),
        "processor_seconds_a_trace": processor_seconds / len(chosen),
        "peak_mib": mib,
        "values": score(policy, chosen, ranked),
        "attributions": ranked,
    }
    with atomic_write(args.out) as file:
        json.dump(result, file)


if __name__ == "__main__":
    main()
