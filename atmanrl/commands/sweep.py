"""`atmanrl sweep`: many runs over a space of options, without importing torch in this process."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.io.folders import locked
from atmanrl.io.terminal import say_end
from atmanrl.shipped import config_file
from atmanrl.sweep.space import Sweep, SweepError, load

PATIENCE = 10.0
"""Seconds that a killed sweep's process may take to end."""


def main(args: Sequence[str]) -> int:
    """Run a sweep, or go on with one; returns the exit status."""
    own, more = list(args), []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    given = _parser().parse_args(own)
    try:
        return _run(load(given.file), given, more)
    except KeyboardInterrupt:
        say_end("interrupted; the same command goes on.")
        return 130


def _run(sweep: Sweep, given: argparse.Namespace, more: list[str]) -> int:
    if given.jobs < 1 or (given.trials is not None and given.trials < 1):
        raise SweepError("--jobs and --trials must be at least 1.")
    if find_spec("optuna") is None:
        raise SweepError("sweeps need Optuna: pip install 'atmanrl[sweep]'.")
    from atmanrl.io.terminal import print_whole
    from atmanrl.sweep import results
    from atmanrl.sweep.study import Options, Study, rows
    from atmanrl.sweep.trial import COMMAND

    console = Console()
    folder = given.out or Path("runs") / "sweeps" / given.file.stem
    for key in sweep.ignored:
        console.print(escape.terminal(f"{sweep.path}: {key} has no effect here."), markup=False)

    def say(line: str) -> None:
        console.print(escape.terminal(line), markup=False, highlight=False)
        results.write_csv(folder / "sweep.csv", rows(study))

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # trials are ended as on Ctrl-C
    with locked(folder, COMMAND, PATIENCE):
        study = Study(
            sweep, Options(folder, given.jobs, given.trials, given.seed, not given.skip_test, tuple(more)), say
        )
        study.run()
        found, best = rows(study), study.best()
        results.write_csv(folder / "sweep.csv", found)
    number = None if best is None else best.number
    print_whole(console, results.table(sweep, found, number))
    if best is None:
        raise SweepError(f"no trial of {folder} has succeeded; the trials' folders hold their logs, trial.log.")
    drawn = results.draw(folder / "sweep.png", sweep, found, number)
    told = ", ".join(f"{name}={value}" for name, value in study.values(best).items())
    winner = escape.terminal(f"Best: {study.folder(best.number)}, {told}.")
    console.print(winner, markup=False, highlight=False, soft_wrap=True)
    plot = f" and {folder / 'sweep.png'}" if drawn else "; for a plot: pip install 'atmanrl[figures]'"
    files = escape.terminal(f"All trials: {folder / 'sweep.csv'}{plot}")
    console.print(files, markup=False, highlight=False, soft_wrap=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atmanrl sweep", usage="atmanrl sweep FILE [options] [-- options of every trial]",
        description="Run the trials of a sweep's file (W&B's format); the same command goes on after an interruption.",
    )  # fmt: skip
    parser.add_argument(
        "file", type=lambda name: user_path(config_file(name)), help="a file, or a name such as sweeps/reward_weight"
    )
    parser.add_argument("--out", type=user_path, help="the sweep's folder (default: runs/sweeps/ and the file's name)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time (default: 1)")
    parser.add_argument("--trials", type=int, help="most trials in all, those of earlier starts counted")
    parser.add_argument("--seed", type=int, default=0, help="of random points (default: 0)")
    parser.add_argument("--skip_test", action="store_true", help="leave out the test problems after each training")
    return parser
