"""Whether a killed run that goes on is the run that was never killed.

    python -m experiments.benchmarks.resume --kills 20 --json experiments/benchmarks/results/resume.json

A tiny run of the laptop policy (outcome and saliency reward, a checkpoint every second update, an evaluation every third)
is trained twice without interruption, which tells whether this machine repeats itself at all (`repeats`): a resumed run can
be equal to an uninterrupted one only where two uninterrupted ones are equal. Then the same command is started in another
folder and killed with SIGKILL, again and again, each time with `--ckpt_path=last` from where it stands: at random moments,
and at every third kill while a checkpoint is being written (its temporary file has appeared). Whether a kill fell into the
writing of a checkpoint is read off the folder: the temporary file is still there. Where a run reaches its end, another one
is begun.

A kill counts as `identical` if at the next stop (the next kill, or the end of the run) the resumed run is, bit for bit,
the uninterrupted one as far as its newest checkpoint: weights, state of the optimizer and random state in the checkpoint,
every update's rollouts, the evaluations, and each row of `metrics.csv`, once each, but for the columns of times. At the
end of a run its exported policy is compared, too. `lost_steps_beyond_last_checkpoint` counts updates by which a resumed
run began before the newest checkpoint that was whole when it was killed, and updates up to it without a log.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from experiments.benchmarks.killed_runs import Run, kill_somewhere, uninterrupted


def untimed(folder: Path, updates: int) -> list[dict[str, str]]:
    """Rows of `metrics.csv` of the first updates, without the times."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] and int(row["step"]) < updates]
    return [{k: v for k, v in row.items() if v and "time" not in k and "seconds" not in k} for row in rows]


def evaluations(folder: Path, updates: int) -> dict[str, Any]:
    """Contents of `eval/` as far as an update; which checkpoint a run began at is no figure."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("eval/validation_*")):
        if int(path.stem.split("_")[1]) <= updates and path.suffix in (".json", ".jsonl"):
            found[path.name] = path.read_text()
            if path.suffix == ".json":
                found[path.name] = json.loads(found[path.name])
                found[path.name]["setting"].pop("checkpoint")
    return found


def same(a: Any, b: Any) -> bool:
    """Equality, to the bit, of nested containers with tensors."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def differences(run: Path, reference: Path, updates: int) -> list[str]:
    """What of a run is not as in the reference, as far as an update with a checkpoint."""
    found = []
    name = f"checkpoints/update_{updates:05d}.ckpt"
    if updates:
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (run, reference))
        for part in ("state_dict", "optimizer_states", "random", "tokens_seen", "global_step"):
            if not same(ours[part], theirs[part]):
                found.append(f"{name}: {part}")
    for update in range(1, updates + 1):
        log = f"rollouts/update_{update:05d}.jsonl"
        if not (run / log).is_file() or (run / log).read_bytes() != (reference / log).read_bytes():
            found.append(log)
    if updates and untimed(run, updates) != untimed(reference, updates):
        found.append("metrics.csv")
    if evaluations(run, updates) != evaluations(reference, updates):
        found.append("eval")
    return found


def lost(run: Run) -> int:
    """Updates as far as the newest checkpoint that are not in the log."""
    if not run.checkpoint:
        return 0
    rows = [int(row["step"]) for row in untimed(run.folder, run.checkpoint) if "reward" in row]
    return run.checkpoint - len(set(rows))


def measure(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """The whole benchmark."""
    rng, updates = random.Random(seed), 40
    reference, again = (Run(folder / name, updates, keep=-1) for name in ("reference", "again"))
    began = time.monotonic()
    uninterrupted(reference)
    whole = time.monotonic() - began
    print(f"uninterrupted: {updates} updates in {whole:.0f} s", flush=True)
    uninterrupted(again)
    unlike = differences(again.folder, reference.folder, updates)
    unlike += [] if same_export(again.folder, reference.folder) else ["policy"]
    print(f"the same once more: {'equal bit for bit' if not unlike else 'differs in ' + ', '.join(unlike)}", flush=True)
    notes: list[dict[str, Any]] = []
    runs = ended = 0
    while len(notes) < kills or ended < runs:
        run = Run(folder / f"killed_{runs}", updates, keep=2)
        runs += 1
        open_kill: dict[str, Any] | None = None
        while ended < runs:
            run.start()
            number = len(notes)
            killed = number < kills and kill_somewhere(run, rng, number % 3 == 2, first=open_kill is None)
            while not killed and run.running:
                time.sleep(0.1)
            if open_kill is not None:  # what the start after the last kill has come to
                open_kill["began_at"] = run.began_at
                open_kill["lost"] += max(0, open_kill["checkpoint"] - run.began_at)
                wrong = differences(run.folder, reference.folder, run.checkpoint)
                if not killed and not same_export(run.folder, reference.folder):
                    wrong.append("policy")
                open_kill["identical"], open_kill["differences"] = not wrong, wrong
                open_kill["compared_to_update"] = run.checkpoint
                print(open_kill, flush=True)
            if not killed:
                ended += 1
                break
            open_kill = {
                "kill": len(notes) + 1, "checkpoint": run.checkpoint, "logged": run.updates,
                "during_checkpoint": run.writing is not None, "lost": lost(run),
            }  # fmt: skip
            notes.append(open_kill)
    return {
        "command": f"python -m experiments.benchmarks.resume --kills {kills} --seed {seed}",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "lightning", "transformers")},
        "repeats": not unlike,
        "kills": len(notes),
        "during_checkpoint": sum(note["during_checkpoint"] for note in notes),
        "before_first_checkpoint": sum(note["checkpoint"] == 0 for note in notes),
        "lost_steps_beyond_last_checkpoint": sum(note["lost"] for note in notes),
        "identical": sum(note["identical"] for note in notes),
        "runs": runs,
        "updates_of_a_run": updates,
        "uninterrupted_seconds": round(whole, 1),
        "seconds": round(time.monotonic() - began, 1),
        "each": notes,
    }


def same_export(run: Path, reference: Path) -> bool:
    """Whether the exported weights are the same file."""
    ours, theirs = (folder / "policy/model.safetensors" for folder in (run, reference))
    return ours.read_bytes() == theirs.read_bytes()


def main() -> int:
    """Measure, print, write; status 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(description="SIGKILL a run again and again, and compare it with one left alone.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="resume_"))
    try:
        found = measure(folder, given.kills, given.seed)
    finally:
        if given.keep:
            print(f"the runs are in {folder}")
        else:
            shutil.rmtree(folder)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({k: v for k, v in found.items() if k != "each"}, indent=2))
    return 0 if found["identical"] == found["kills"] and not found["lost_steps_beyond_last_checkpoint"] else 1


if __name__ == "__main__":
    sys.exit(main())
