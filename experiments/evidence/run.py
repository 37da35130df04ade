"""The queue of the evidence: trains, tests and measures every arm and seed that is missing.

    python -m experiments.evidence.run --jobs 2                  # whatever is missing; about ten hours on two cores
    python -m experiments.evidence.run --arm b --seed 0          # one of them
    python -m experiments.evidence.run --list                    # what is there

A job that was killed goes on from its last checkpoint when the queue is started again. Jobs share no randomness but that of
their seed, and each has the same number of threads, so neither their order nor the number of jobs changes a result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from experiments.evidence.arms import EVERY, STEPS, TUNING_STEPS, Arm
from experiments.evidence.job import Job, StepError

HERE = Path(__file__).parent


def queue(arms: Sequence[Arm], seeds: Sequence[int] | None, runs: Path, results: Path) -> list[Job]:
    """The jobs of some arms, seed by seed, so that what a stop leaves behind is as even as can be.

    Args:
        arms: in the order of a seed's jobs.
        seeds: those alone; None takes as many as each arm has.
        runs: folder of the runs.
        results: folder of what is kept of them.
    """
    most = max(arm.seeds for arm in arms)
    pairs = [(arm, seed) for seed in range(most) for arm in arms if seed < arm.seeds]
    if seeds is not None:
        pairs = [(arm, seed) for seed in seeds for arm in arms]
    return [Job(arm, seed, runs, results) for arm, seed in pairs]


def carry_out(job: Job, steps: Sequence[str]) -> str | None:
    """Carry out what is missing of a job, unless another process is at it; returns what failed."""
    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.folder / ".lock", timeout=0):
            job.carry_out(steps)
    except Timeout:
        print(f"{job.name}: another process is at it", flush=True)
    except StepError as error:
        print(f"{job.name}: {error}", flush=True)
        return f"{job.name}: {error}"
    return None


def main() -> int:
    """Run the queue; returns 1 if a job failed."""
    parser = argparse.ArgumentParser(description="Train, test and measure the arms of the evidence that are missing.")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, one thread each (default: 1)")
    parser.add_argument("--arm", action="append", choices=EVERY, help="this arm alone; may be given several times")
    parser.add_argument("--seed", action="append", type=int, help="this seed alone; may be given several times")
    steps = (*STEPS, *TUNING_STEPS)
    parser.add_argument("--step", action="append", choices=steps, help="this step alone; may be given several times")
    parser.add_argument("--runs", type=Path, default=Path("runs/evidence"), help="where runs are kept")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where their raw results go")
    parser.add_argument("--list", action="store_true", help="say what is done and what is missing, and end")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")

    jobs = queue([EVERY[key] for key in options.arm or EVERY], options.seed, options.runs, options.results)
    if options.list:
        print("\n".join(f"{job.name:<8}{job.arm.name:<32}{job.state()}" for job in jobs))
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = []
        for own in (True, False):  # what stands by itself, then what needs another job's policy
            ready = [job for job in jobs if job.stands_alone == own]
            failed += [
                failure for failure in pool.map(lambda job: carry_out(job, options.step or steps), ready) if failure
            ]
    print("\n".join(failed) if failed else "nothing is missing.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
