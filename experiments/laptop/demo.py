"""The demo: two runs under identical settings, with and without the saliency reward, and Table 1 of both.

    python -m experiments.laptop.demo

It prints the command of each step before it runs it, so that every step can be repeated alone. The warm start is
evaluated too, to show what both began from; some test rollouts of each are probed, and a report with figures, and with
answers side by side and their saliency, is written at the end.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console

from atmanrl.__main__ import main as atmanrl
from atmanrl.report import load_values, write_json

CONFIGS = {"atmanrl": "configs/laptop.yaml", "baseline": "configs/laptop_baseline.yaml"}
WARM_START = "experiments/laptop/policy"
PROBE = ("--limit=40", "--probe.solver=adaptive", "--device=cpu")
"""Ten problems' rollouts of each run: the report shows their saliency at a click."""


def run(console: Console, *args: str) -> None:
    """One command, shown and run in this process; a failure ends the demo."""
    console.print(f"\n$ atmanrl {shlex.join(args)}", style="bold", highlight=False, soft_wrap=True)
    if status := atmanrl(list(args)):
        sys.exit(status)


def main() -> None:
    """Train, evaluate, compare."""
    parser = argparse.ArgumentParser(description="Train the laptop policy with and without saliency, and compare.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("overrides", nargs="*", help="options for every command, such as --trainer.max_steps=10")
    args, more = parser.parse_known_args()
    overrides = [*args.overrides, *more]
    console, began = Console(), time.perf_counter()
    if args.out.exists():
        older = next(p for n in range(1, 10_000) if not (p := args.out.with_name(f"{args.out.name}-{n}")).exists())
        args.out.rename(older)
        console.print(f"The folder of an earlier demo is now {older}.", highlight=False)
    for name, config in CONFIGS.items():
        folder = f"--trainer.default_root_dir={args.out / name}"
        run(console, "fit", "--config", config, folder, *overrides)
        run(
            console, "test", "--config", config, folder, f"--model.policy.path={args.out / name / 'policy'}", *overrides
        )
    warm = args.out / "warm_start"
    run(console, "test", "--config", CONFIGS["baseline"], f"--trainer.default_root_dir={warm}", *overrides)
    for name, policy in {
        **{name: args.out / name / "policy" for name in CONFIGS},
        "warm_start": Path(WARM_START),
    }.items():
        traces, probed = args.out / name / "eval/test.jsonl", args.out / name / "probe"
        run(console, "probe", f"--model={policy}", f"--traces={traces}", f"--out={probed}", *PROBE)
    rows = {name: load_values(args.out / name) for name in CONFIGS}
    write_json(rows, args.out / "table1.json")
    folders = [str(args.out / name) for name in ("warm_start", *CONFIGS)]
    run(console, "report", *folders, "--out", str(args.out / "report"), "--title", "The laptop demo")
    minutes = (time.perf_counter() - began) / 60
    console.print(f"{args.out / 'table1.json'} written; the demo took {minutes:.1f} minutes.", highlight=False)


if __name__ == "__main__":
    main()
