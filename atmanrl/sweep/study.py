"""A sweep's progress: Optuna chooses points and remembers them; trials run as processes of their own.

One loop in one thread starts trials, polls them and tells Optuna how they ended. All that must survive a kill is in
`sweep.db` and in the trials' folders: a trial that Optuna still counts as running when a sweep begins was interrupted, and
goes on in its own folder, from its run's last checkpoint.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from atmanrl.errors import first_line
from atmanrl.io.folders import check_fillable, check_replaceable, mark
from atmanrl.sweep.space import Choice, Range, Sweep, SweepError
from atmanrl.sweep.trial import COMMAND, Trial, command_line, error_in

FILES = ("sweep.db", "sweep.csv", "sweep.png")
"""What a sweep writes into its folder, besides its trials' folders."""
NAME = "sweep"
"""Of the study in the database."""
DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, json.JSONDecodeError)
"""What Optuna raises where its database cannot be read or written, or holds what it has not written."""

MOST_POINTS = 10_000
"""Of a grid: each is a run, and a row in the database before the first one begins."""


@dataclass(frozen=True)
class Options:
    """How a sweep runs.

    Attributes:
        folder: of the sweep.
        jobs: trials at a time, among which the cores are divided.
        trials: most trials in all, those of earlier starts counted; None takes the file's run_cap.
        seed: of random points.
        test: whether each run is tested after its training.
        more: options of every trial.

    Example:
        `Options(Path("runs/sweeps/reward_weight"), jobs=2, more=("--trainer.max_steps=20",))`
    """

    folder: Path
    jobs: int = 1
    trials: int | None = None
    seed: int = 0
    test: bool = True
    more: tuple[str, ...] = ()


def check_folder(folder: Path) -> None:
    """Refuse a folder in which a sweep would replace what it has not written.

    Raises:
        FileError: it holds files or trials that no sweep has made.
    """
    check_fillable(folder, COMMAND, FILES)
    for trial in folder.glob("trial_*"):
        check_replaceable(trial, COMMAND)


class Study:
    """One sweep in its folder, which the caller locks against other sweeps (`folders.locked`).

    Args:
        sweep: the file.
        options: how it runs.
        say: receives one line about every trial that ends.

    Raises:
        SweepError: the folder holds another sweep, its database is damaged or empty, or nothing says how many trials there
            are.
        FileError: the folder holds files or trials that no sweep has made.
    """

    def __init__(self, sweep: Sweep, options: Options, say: Callable[[str], None] = print) -> None:
        self.sweep, self.options, self.say = sweep, options, say
        self.limit = self._limit()
        check_folder(options.folder)
        mark(options.folder, COMMAND)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        database = options.folder / "sweep.db"
        began = database.exists() and any(options.folder.glob("trial_*"))
        try:
            if began and not _holds_study(database):
                raise SweepError(
                    f"{database} is empty, but trials stand beside it; restore it, or remove it to begin the sweep anew, in "
                    "which trials that are done are not repeated."
                )
            self.study = optuna.create_study(
                storage=_url(database), study_name=NAME, load_if_exists=True,
                sampler=self._sampler(0), direction=sweep.goal,
            )  # fmt: skip
            self._same_as_before()
            self.finished()  # which reads all of them
        except DATABASE_ERRORS as error:
            raise SweepError(
                f"{database} cannot be used ({first_line(error)}); restore it, or choose another --out."
            ) from error
        if sweep.method == "grid":
            for point in islice(sweep.grid(), self.limit):
                drawn = {n: _text(v) if isinstance(sweep.parameters[n], Choice) else v for n, v in point.items()}
                self.study.enqueue_trial(drawn, skip_if_exists=True)

    def run(self) -> None:
        """Run the trials that are left.

        Raises:
            SweepError: a parameter is no option, or the metric is not among a run's metrics.
        """
        stale = deque(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        begun = self._begun()
        if not stale and begun >= self.limit:
            return
        if not begun:  # else they were checked before, and a folder's sweep keeps its options
            self._check_options()
        running: dict[int, tuple[optuna.trial.Trial, Trial]] = {}
        try:
            while True:
                while len(running) < self.options.jobs and (asked := self._next(stale)) is not None:
                    trial = self._trial(asked)
                    if trial.stage is None:  # killed between its last command and the word to Optuna
                        self._finish(asked, trial, 0)
                        continue
                    trial.start()
                    running[asked.number] = asked, trial
                if not running:
                    return
                time.sleep(0.05)
                for number, (asked, trial) in list(running.items()):
                    status = trial.poll()
                    if status == 0 and trial.stage is not None:
                        trial.start()
                    elif status is not None:
                        del running[number]
                        self._finish(asked, trial, status)
        finally:
            for _, trial in running.values():
                trial.stop()

    def finished(self) -> list[FrozenTrial]:
        """Return the trials that have ended, in their order."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))

    def best(self) -> list[FrozenTrial]:
        """Return the trials with the best metric: several where they tie, none if none has one."""
        return self.study.best_trials

    def folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.options.folder / f"trial_{number:04d}"

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """Return a trial's parameters as the file writes them."""
        return {n: _value(space, trial.params[n]) for n, space in self.sweep.parameters.items() if n in trial.params}

    def _limit(self) -> int:
        wanted = [n for n in (self.options.trials or self.sweep.run_cap,) if n is not None]
        if self.sweep.method == "grid":
            limit = min([self.sweep.size, *wanted])
            if limit > MOST_POINTS:
                raise SweepError(
                    f"{self.sweep.path}: the grid has {self.sweep.size} points; give --trials or run_cap, {MOST_POINTS} at "
                    "most, or the method random."
                )
            return limit
        if not wanted:
            raise SweepError(f"{self.sweep.path}: {self.sweep.method} has no end; give --trials or run_cap.")
        return wanted[0]

    def _same_as_before(self) -> None:
        identity = {**self.sweep.identity(), "more": list(self.options.more), "goal": self.sweep.goal}
        before = self.study.user_attrs.get("identity", identity)
        changed = [key for key, value in identity.items() if before.get(key) != value]
        if self.study.user_attrs.get("metric", self.sweep.metric) != self.sweep.metric and self.best():
            changed.append("metric")
        if changed:
            raise SweepError(
                f"{self.options.folder} holds a sweep with another {changed[0]} than {self.sweep.path}; "
                "choose another --out."
            )
        self.study.set_user_attr("identity", identity)
        self.study.set_user_attr("metric", self.sweep.metric)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Seed by the trial's number, so that an interrupted sweep draws the points that it would have drawn."""
        seed = self.options.seed * 1_000_003 + number
        if self.sweep.method == "bayes":
            return optuna.samplers.TPESampler(seed=seed)
        return optuna.samplers.RandomSampler(seed=seed)

    def _begun(self) -> int:
        return sum(t.state != TrialState.WAITING for t in self.study.get_trials(deepcopy=False))

    def _next(self, stale: deque[FrozenTrial]) -> optuna.trial.Trial | None:
        if stale:
            old = stale.popleft()
            self.study.sampler = self._sampler(old.number)
            return optuna.trial.Trial(self.study, old._trial_id)
        if self._begun() >= self.limit:
            return None
        self.study.sampler = self._sampler(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def _trial(self, asked: optuna.trial.Trial) -> Trial:
        parameters = {
            name: _value(space, _suggest(asked, name, space)) for name, space in self.sweep.parameters.items()
        }
        folder = self.folder(asked.number)
        return Trial(folder, self.sweep, parameters, self.options.more, self.options.test, self.options.jobs)

    def _finish(self, asked: optuna.trial.Trial, trial: Trial, status: int) -> None:
        metrics, metric = trial.metrics(), self.sweep.metric
        if status == 0 and metric not in metrics:
            near = get_close_matches(metric, metrics, n=3, cutoff=0.4) or sorted(metrics)[:3]
            raise SweepError(
                f"{self.sweep.path}: metric.name {metric!r} is not among the metrics of {trial.folder}"
                + (f"; there are {', '.join(near)}." if near else ", which has no metrics.csv.")
            )
        if status == 0 and math.isnan(metrics[metric]):
            error = f"{metric} has no value"
        else:
            error = "" if status == 0 else trial.error()
        asked.set_user_attr("seconds", round(trial.notes["seconds"], 1))
        asked.set_user_attr("figures", {n: v for n, v in metrics.items() if not math.isnan(v)})
        point = ", ".join(f"{name.rsplit('.', 1)[-1]} = {value}" for name, value in trial.parameters.items())
        if error:
            asked.set_user_attr("error", error)
            self.study.tell(asked, state=TrialState.FAIL)
            self.say(f"trial {asked.number} ({point}) failed: {error}")
        else:
            self.study.tell(asked, metrics[metric])
            self.say(f"trial {asked.number} ({point}): {metric} {metrics[metric]:.4g}, {trial.notes['seconds']:.0f} s")

    def _check_options(self) -> None:
        """Parse one trial's options before any trial runs: an unknown name would fail every one."""
        if "fit" not in self.sweep.command:
            return
        point = {n: s.values[0] if isinstance(s, Choice) else s.low for n, s in self.sweep.parameters.items()}
        command = command_line(self.sweep, point, [*self.options.more, "--print_config"])
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            error = error_in(done.stderr, done.returncode)
            key = next((f".{name}" for name in point if name.rsplit(".", 1)[-1] in error), "")
            raise SweepError(f"{self.sweep.path}: parameters{key}: {error}")


def _url(database: Path) -> str:
    return f"sqlite:///{database.resolve()}"


def _holds_study(database: Path) -> bool:
    # Optuna would fill an empty file with tables
    return database.stat().st_size > 0 and NAME in optuna.get_all_study_names(_url(database))


def _suggest(asked: optuna.trial.Trial, name: str, space: Choice | Range) -> Any:
    if isinstance(space, Choice):
        return asked.suggest_categorical(name, list(dict.fromkeys(map(_text, space.values))))
    if space.whole:
        return asked.suggest_int(name, int(space.low), int(space.high))
    return asked.suggest_float(name, space.low, space.high, step=space.step, log=space.log)


def _value(space: Choice | Range, drawn: Any) -> Any:
    return json.loads(drawn) if isinstance(space, Choice) else drawn


def _text(value: Any) -> str:
    # for Optuna 1, 1.0 and true are one value, and a list is none
    return json.dumps(value, default=str)
