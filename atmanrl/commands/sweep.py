"""`atmanrl sweep`: many runs over a space of options, without importing torch in this process."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.errors import did_you_mean
from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.io.folders import locked
from atmanrl.io.terminal import print_whole, say_end
from atmanrl.shipped import config_file, configs
from atmanrl.sweep.space import Sweep, SweepError, load

PATIENCE = 10.0
"""Seconds within which a killed sweep's process ends."""


def main(args: Sequence[str]) -> int:
    """Run a sweep, or go on with one; return the exit status."""
    own, more = list(args), []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    options = _parser().parse_args(own)
    if not options.file.exists():
        hint = did_you_mean(str(options.file), [name for name in configs() if name.startswith("sweeps/")])
        raise SweepError(f"there is no file {options.file}{f'; {hint}' if hint else '.'}")
    try:
        return _run(load(options.file), options, more)
    except KeyboardInterrupt:
        say_end("interrupted; the same command goes on.")
        return 130


def _run(sweep: Sweep, options: argparse.Namespace, more: list[str]) -> int:
    if options.jobs < 1 or (options.trials is not None and options.trials < 1):
        raise SweepError("--jobs and --trials must be at least 1.")
    if find_spec("optuna") is None:
        raise SweepError("sweeps need Optuna: pip install 'atmanrl[sweep]'.")
    from atmanrl.sweep import results
    from atmanrl.sweep.study import Options, Study, check_folder
    from atmanrl.sweep.trial import COMMAND

    console = Console()
    folder = options.out or Path("runs") / "sweeps" / options.file.stem

    def say(line: str) -> None:
        console.print(escape.terminal(line), markup=False, highlight=False, soft_wrap=True)

    def ended(line: str) -> None:
        say(line)
        results.write_csv(folder / "sweep.csv", results.rows(study))

    for key in sweep.ignored:
        say(f"{sweep.path}: {key} has no effect here.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # trials are ended as on Ctrl-C
    check_folder(folder)  # before a lock is left there
    with locked(folder, COMMAND, PATIENCE):
        study = Study(
            sweep,
            Options(folder, options.jobs, options.trials, options.seed, not options.skip_test, tuple(more)),
            ended,
        )
        study.run()
        trials, best = results.rows(study), study.best()
        results.write_csv(folder / "sweep.csv", trials)
    numbers = {trial.number for trial in best}
    print_whole(console, results.table(sweep, trials, numbers))
    if not best:
        raise SweepError(f"no trial of {folder} has succeeded; the trials' folders hold their logs, trial.log.")
    drawn = results.draw(folder / "sweep.png", sweep, trials, numbers)
    if len(best) > 1:
        say(f"{len(best)} trials tie:")
    for trial in best:
        point = ", ".join(f"{name}={value}" for name, value in study.values(trial).items())
        say(f"Best: {study.folder(trial.number)}, {point}.")
    plot = f" and {folder / 'sweep.png'}" if drawn else "; for a plot: pip install 'atmanrl[figures]'"
    say(f"All trials: {folder / 'sweep.csv'}{plot}")
    return 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="atmanrl sweep", usage="atmanrl sweep FILE [options] [-- options of every trial]",
        description="Run the trials of a sweep's file (W&B's format); the same command goes on after an interruption.",
    )  # fmt: skip
    parser.add_argument(
        "file", type=lambda name: user_path(config_file(name)), help="a file, or a name such as sweeps/reward_weight"
    )
    parser.add_argument("--out", type=user_path, help="the sweep's folder (default: runs/sweeps/ and the file's name)")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time, which share the cores (default: 1)")
    parser.add_argument("--trials", type=int, help="most trials in all, those of earlier starts counted")
    parser.add_argument("--seed", type=int, default=0, help="of random points (default: 0)")
    parser.add_argument("--skip_test", action="store_true", help="leave out the test problems after each training")
    return parser
