"""One job of the queue: an arm on a seed, trained, tested and measured in processes of its own."""

from __future__ import annotations

import gzip
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from atmanrl.io import jsonl
from atmanrl.io.files import atomic_file, atomic_write
from experiments.evidence.arms import TUNING_STEPS, WARM_START, Arm

PACKAGES = ("torch", "transformers", "lightning", "spacy", "numpy")
TEST_SEED = 0
"""All arms and seeds answer the same test problems with the same random numbers."""
TASK_SEED, TUNING_SEED = 2, 1
"""Of the task: of the problems that are trained on and tested, and of those on which settings are chosen."""
KEPT = ("problem_id", "sample", "cot", "answer", "gold", "right", "finished", "cot_tokens")
"""Of each completion of a test; what is left out follows from the seed and the policy."""
MEASURED_PROBLEMS = 250
"""Of the 500 test problems; the measures take many forward passes of each rollout."""


class StepError(Exception):
    """A command of a job failed."""


@dataclass(frozen=True)
class Job:
    """An arm on a seed.

    Attributes:
        arm: what is rewarded.
        seed: of sampling, of the order of problems, and of everything else.
        runs: folder of the runs.
        results: folder of what is kept of them.

    Example:
        `Job(ARMS["b"], 0, Path("runs/evidence"), Path("experiments/evidence/results"))`
    """

    arm: Arm
    seed: int
    runs: Path
    results: Path

    @property
    def name(self) -> str:
        """The arm's letter and the seed: `b-0`."""
        return f"{self.arm.key}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Its logs, its lock, its record, and the run."""
        return self.runs / self.name

    @property
    def run(self) -> Path:
        """The run's folder, which is `atmanrl`'s alone."""
        return self.folder / "run"

    @property
    def tuning(self) -> Path:
        """The folder of its test on the tuning problems."""
        return self.folder / "tuning"

    @property
    def warm_start(self) -> str:
        """The folder of the policy that it begins with."""
        return self.arm.warm_start.format(runs=self.runs, seed=self.seed)

    @property
    def stands_alone(self) -> bool:
        """Whether it needs no other job's policy or checkpoint."""
        return self.arm.warm_start == WARM_START and self.arm.checkpoint is None

    @property
    def kept(self) -> Path:
        """The folder of its results."""
        return self.results / self.name

    def steps(self) -> dict[str, list[str]]:
        """The commands of the arm's steps, in order."""
        steps = (*self.arm.steps, *(TUNING_STEPS if self.seed < self.arm.tuned else ()))
        return {step: self._words(step) for step in steps}

    def _words(self, step: str) -> list[str]:
        """The command of one step."""
        if step in ("fit", "test", "tune"):
            return ["atmanrl", *self._options(step), "--trainer.enable_progress_bar=false"]
        rollouts = ["--rollouts", str((self.tuning if step == "count_tuning" else self.run) / "eval/test.jsonl")]
        if step != "measure":
            counts = "tuning_counts.csv" if step == "count_tuning" else "counts.csv"
            return ["experiments.evidence.count", *rollouts, "--out", str(self.folder / counts)]
        return [
            "experiments.evidence.measure", "--policy", str(self.run / "policy"), *rollouts, "--warm-start",
            self.warm_start, "--problems", str(MEASURED_PROBLEMS), "--samples", "1", "--out",
            str(self.folder / "measures.json"),
        ]  # fmt: skip

    def _options(self, step: str) -> list[str]:
        """What `atmanrl` is called with to train, to test, or to test on the tuning problems."""
        arm, root = self.arm, f"--trainer.default_root_dir={self.tuning if step == 'tune' else self.run}"
        rewarded = ["--config", arm.config, *arm.task, *arm.options]
        if step == "fit":
            policy = [] if self.warm_start == WARM_START and not arm.test_config else [self.warm_start]
            return [
                "fit", *rewarded, root, *(f"--model.policy.path={path}" for path in policy),
                f"--seed_everything={self.seed}", f"--data.seed={self.seed}", "--ckpt_path=last",
            ]  # fmt: skip
        tested = ["--config", arm.test_config, *arm.task] if arm.test_config else rewarded
        weights = f"--model.policy.path={self.run / 'policy'}"
        if arm.checkpoint:
            weights = f"--ckpt_path={arm.checkpoint.format(runs=self.runs, seed=self.seed)}"
        seed = [f"--data.task.seed={TUNING_SEED if step == 'tune' else TASK_SEED}"]
        return [
            "test", *tested, *(seed if arm.test_config or step == "tune" else []), root, weights,
            f"--data.seed={TEST_SEED}",
        ]  # fmt: skip

    def state(self) -> str:
        """What `--list` says of it: the steps that are done."""
        return ", ".join(self._record()["steps"]) or "nothing yet"

    def carry_out(self, steps: Collection[str]) -> None:
        """Run those of some steps that are missing, and keep their results; a step's seconds are those of all its starts.

        Raises:
            StepError: a command failed; what was done before it is kept.
        """
        record = self._record()
        for step, command in self.steps().items():
            if step in record["steps"] or step not in steps:
                continue
            began = time.perf_counter()
            try:
                self._command(step, command)
            finally:
                spent = record.setdefault("seconds_so_far", {})
                spent[step] = round(spent.get(step, 0.0) + time.perf_counter() - began, 1)
                self._write(record)
            record["steps"][step] = {
                "command": shlex.join(["python", "-m", *command]), "seconds": record["seconds_so_far"].pop(step),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"), "commit": _commit(),
            }  # fmt: skip
            self._write(record)
            self._keep()
            print(f"{self.name}: {step} took {record['steps'][step]['seconds']:.0f} s", flush=True)

    def _write(self, record: dict[str, Any]) -> None:
        """Write the record."""
        with atomic_write(self.folder / "record.json") as file:
            json.dump({key: value for key, value in record.items() if value or key == "steps"}, file, indent=1)

    def _record(self) -> dict[str, Any]:
        for path in (self.folder / "record.json", self.kept / "record.json"):
            if path.exists():
                record: dict[str, Any] = json.loads(path.read_text())
                return record
        return {
            "arm": self.arm.key, "name": self.arm.name, "seed": self.seed,
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, one thread a job",
            "python": platform.python_version(), "versions": {name: _version(name) for name in PACKAGES}, "steps": {},
        }  # fmt: skip

    def _command(self, step: str, command: list[str]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with (self.folder / f"{step}.log").open("a") as log:
            ended = subprocess.run(
                [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
            )
        if ended.returncode:
            raise StepError(f"{step} ended with status {ended.returncode}: see {log.name}.")

    def _keep(self) -> None:
        """Copy what the analysis reads, compressed; the policy and the token ids stay in the run's folder."""
        self.kept.mkdir(parents=True, exist_ok=True)
        for path in map(self.folder.joinpath, ("run/metrics.csv", "counts.csv", "tuning_counts.csv", "measures.json")):
            if path.exists():
                _compress(path.read_bytes(), self.kept / f"{path.name}.gz")
        if (tested := self.run / "eval/test.jsonl").exists():
            rollouts = ({key: line.row[key] for key in KEPT} for line in jsonl.read(tested))
            text = "".join(json.dumps(rollout, ensure_ascii=False) + "\n" for rollout in rollouts)
            _compress(text.encode(), self.kept / "completions.jsonl.gz")
        for path in (self.run / "eval/test.json", self.folder / "record.json"):
            if path.exists():
                with atomic_write(self.kept / path.name) as file:
                    file.write(path.read_text())


def _compress(content: bytes, path: Path) -> None:
    """Write a file whose bytes depend on its content alone: without a time and a name of its own."""
    with atomic_file(path) as temporary, temporary.open("wb") as raw:
        with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
            packed.write(content)


def _version(package: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    """The version of the code, with a mark where files were changed since."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
