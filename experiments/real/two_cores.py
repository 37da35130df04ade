"""AtManRL on SmolLM2-135M-Instruct on two CPU cores: a warm start, two arms, their tests and measures, in an hour or two.

    python -m experiments.real.fetch
    python -m experiments.real.two_cores --json experiments/real/results/two_cores.json [--only outcome-0 ...]

Steps are commands of their own, run one after the other; what is done is kept in `--work`, and the same call goes on where
it stopped. The JSON has the figures of all steps so far, and the reasonings of the tests lie beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io import jsonl
from atmanrl.io.files import atomic_write
from atmanrl.io.rows import finite
from atmanrl.io.terminal import say_error
from experiments.real.provenance import provenance

CONFIG, WARM_CONFIG, WARM = "configs/smollm2.yaml", "configs/smollm2_sft.yaml", "warm_start"
WARM_OPTIONS = (
    "--trainer.accelerator=cpu", "--trainer.max_steps=80", "--trainer.val_check_interval=80",
    "--trainer.log_every_n_steps=1", "--model.lr=2.0e-4", "--model.warmup_steps=5", "--data.task=MultiHop",
    "--data.task.steps=2", "--data.task.train_size=2000", "--data.task.test_size=200", "--data.task.seed=0",
    "--data.task.instruction=", "--data.batch_size=4", "--data.val_problems=16", "--data.delimiter=The answer is",
    "--checkpoint.every_n_updates=40",
)  # fmt: skip
"""320 worked solutions of the task that is then rewarded, but of other problems."""
OUTCOME = "--model.rewards={outcome: OutcomeReward}"
ARMS: dict[str, tuple[str, ...]] = {"outcome-0": (OUTCOME,), "saliency-0": ()}
"""What the arms' commands add to the configuration's rewards, outcome and saliency."""
UNTESTED = ("--trainer.limit_val_batches=0",)
"""Training goes without evaluation on held-out training problems; the tests come after it."""
MEASURES = ("CausalImportance", "CotAlone", "InformationFlow", "CopiedAnswer", "FalseEquations")
"""Those that take a few seconds for a rollout."""
BEFORE = "before"
"""The test of the warm start."""
CURVE = (
    "accuracy", "cot/mean_length", "completions/mean_length", "completions/clipped_ratio", "cot/numbers_pct",
    "cot/stop_words_pct", "cot/symbols_pct", "frac_reward_zero_std", "entropy", "grad_norm", "rewards/outcome/mean",
    "rewards/outcome/group_std", "rewards/saliency/mean", "rewards/saliency/group_std", "rewards/saliency/abstained",
    "saliency/solved", "saliency/unsolved", "probe/gradients", "probe/seconds", "time/rollout", "time/reward",
    "time/update", "step_time",
)  # fmt: skip
"""What is kept of each update."""
PACKAGES = ("torch", "transformers", "lightning", "peft", "reasoning-gym")
KEPT = ("problem_id", "sample", "cot", "answer", "gold", "right", "finished", "cot_tokens")
"""Of each completion of a test."""


def steps(work: Path, problems: int) -> dict[str, list[str]]:
    """Return the command of each step, in order.

    Args:
        work: the folder of the runs.
        problems: of the test, whose first completions are measured.
    """
    quiet, warm = "--trainer.enable_progress_bar=false", work / WARM / "policy"
    rewarded = ["--config", CONFIG, quiet]

    def root(name: str) -> str:
        return f"--trainer.default_root_dir={work / name}"

    commands = {WARM: ["atmanrl", "fit", "--config", WARM_CONFIG, quiet, root(WARM), *WARM_OPTIONS]}
    for arm, options in ARMS.items():
        policy = f"--model.policy.path={warm}"
        commands[arm] = ["atmanrl", "fit", *rewarded, *options, root(arm), policy, *UNTESTED, "--ckpt_path=last"]
    for arm, policy in {BEFORE: warm, **{arm: work / arm / "policy" for arm in ARMS}}.items():
        commands[f"test {arm}"] = ["atmanrl", "test", *rewarded, OUTCOME, root(arm), f"--model.policy.path={policy}"]
        commands[f"measure {arm}"] = [
            "experiments.evidence.measure", "--policy", str(policy), "--warm-start", str(warm), "--problems",
            str(problems), "--samples", "1", "--rollouts", str(work / arm / "eval/test.jsonl"),
            "--out", str(work / arm / "measures.json"), "--only", *MEASURES,
        ]  # fmt: skip
    return commands


def run(work: Path, name: str, command: Sequence[str]) -> None:
    """Run a step, unless it is done, and note its seconds.

    Raises:
        UserError: it failed.
    """
    done, log = work / f"{name}.json", work / f"{name}.log"
    if done.exists():
        return
    began = time.perf_counter()
    with log.open("a") as file:
        ended = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=file, check=False)
    if ended.returncode:
        raise UserError(f"{name} ended with status {ended.returncode}: see {log}.")
    with atomic_write(done) as file:
        json.dump(
            {"command": shlex.join(["python", "-m", *command]), "seconds": round(time.perf_counter() - began, 1)}, file
        )


def curve(folder: Path) -> list[dict[str, float]]:
    """Return what a run has logged of each update."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {"update": int(row["step"]) + 1, **{key: float(f"{float(row[key]):.5g}") for key in CURVE if row.get(key)}}
            for row in csv.DictReader(file)
            if row.get("accuracy")
        ]


def figures(work: Path, arm: str) -> dict[str, Any]:
    """Return what is known of an arm, or of the warm start by the name of its test."""
    known: dict[str, Any] = {}
    if updates := curve(work / arm):
        known["training"] = {"updates": len(updates), "seconds": round(sum(each["step_time"] for each in updates), 1)}
    tested, measured = work / arm / "eval/test.json", work / arm / "measures.json"
    if tested.exists():
        values = json.loads(tested.read_text())
        known["test"] = {key: round(value, 5) for key, value in values.items() if isinstance(value, float)}
    if measured.exists():
        known["faithfulness"] = json.loads(measured.read_text())["means"]
    return known


def results(work: Path, commands: dict[str, list[str]], words: Sequence[str]) -> dict[str, Any]:
    """Return the figures of all steps so far, as `experiments.real.summarise` reads them."""
    done = {name: json.loads(path.read_text()) for name in commands if (path := work / f"{name}.json").exists()}
    arms = {arm: {"figures": figures(work, arm), "curve": curve(work / arm)} for arm in (BEFORE, *ARMS)}
    return {
        **provenance("two_cores", words, os.environ.get("OMP_NUM_THREADS", "all"), PACKAGES),
        "seconds": round(sum(each["seconds"] for each in done.values()), 1),
        "commands": done,
        "steps": {arm: step for arm, step in arms.items() if step["figures"]},
    }


def write(work: Path, out: Path, gathered: dict[str, Any]) -> None:
    """Write the figures, and the completions of the tests beside them."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(json.dumps(finite(gathered), indent=1) + "\n")
    tests = {arm: path for arm in (BEFORE, *ARMS) if (path := work / arm / "eval/test.jsonl").exists()}
    with atomic_write(out.with_suffix(".eval.jsonl")) as file:
        for arm, path in tests.items():
            for line in jsonl.read(path):
                file.write(json.dumps({"arm": arm, **{key: line.row[key] for key in KEPT}}, ensure_ascii=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the steps that are missing; returns the exit status, 1 where one failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = argparse.ArgumentParser(prog="python -m experiments.real.two_cores", description=__doc__.split("\n")[0])
    options.add_argument(
        "--work", type=Path, default=Path("runs/two_cores"), help="what is done (default: %(default)s)"
    )
    options.add_argument("--json", type=Path, required=True, help="figures; completions are written beside it")
    options.add_argument(
        "--problems", type=int, default=40, help="test problems that are measured (default: %(default)s)"
    )
    options.add_argument("--only", nargs="*", help="of the steps; all by default, none gathers what there is")
    args = options.parse_args(words)
    commands = steps(args.work, args.problems)
    args.work.mkdir(parents=True, exist_ok=True)
    try:
        for name in commands if args.only is None else args.only:
            if name not in commands:
                raise UserError(f"there is no step {name!r}; there are {', '.join(commands)}.")
            run(args.work, name, commands[name])
    except UserError as error:
        say_error(error)
        return 1
    finally:
        write(args.work, args.json, results(args.work, commands, words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
