"""A sweep's file: W&B's sweep format, read and checked before anything runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from atmanrl.io.jsonl import is_number
from atmanrl.sweep.yaml_file import SweepError, read, shown

__all__ = ["Choice", "Goal", "Method", "Range", "Sweep", "SweepError", "load"]

Method = Literal["grid", "random", "bayes"]
Goal = Literal["minimize", "maximize"]
DISTRIBUTIONS = ("constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values")
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
_KEYS = {"name", "description", "project", "entity", "program", "command", "method", "metric", "parameters", "run_cap"}
_IGNORED = {"controller", "job"}


@dataclass(frozen=True)
class Choice:
    """Values of which a trial takes one; any YAML value."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        low: the lower end.
        high: the upper end.
        whole: whole numbers only.
        log: even in the logarithm.
        step: multiples of this from the lower end on; None takes any number.
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Sweep:
    """What a sweep's file says.

    Attributes:
        path: the file.
        method: how points are chosen.
        metric: its name in `metrics.csv`, or `test/...` in `eval/test.json`.
        goal: which way is better.
        parameters: by the name of the option.
        command: of a trial, with W&B's macros.
        program: for the macro `${program}`.
        run_cap: most trials; None if the file does not say.
        ignored: keys of the file that have no effect here.
    """

    path: Path
    method: Method
    metric: str
    goal: Goal
    parameters: dict[str, Choice | Range]
    command: tuple[str, ...]
    program: str | None = None
    run_cap: int | None = None
    ignored: tuple[str, ...] = field(default=())

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return math.prod(_size(space) for space in self.parameters.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """All combinations, one by one, the last parameter changing fastest."""
        for number in range(self.size):
            point = {}
            for name, space in reversed(self.parameters.items()):
                number, place = divmod(number, _size(space))
                point[name] = space.values[place] if isinstance(space, Choice) else int(space.low) + place
            yield {name: point[name] for name in self.parameters}

    def identity(self) -> dict[str, Any]:
        """What must be the same for a folder's sweep to be gone on with."""
        space = {name: [type(s).__name__, *vars(s).values()] for name, s in self.parameters.items()}
        found = {"method": self.method, "parameters": space, "command": self.command, "program": self.program}
        return cast("dict[str, Any]", json.loads(json.dumps(found)))


def load(path: Path) -> Sweep:
    """Read a sweep's file.

    Raises:
        SweepError: in one sentence, with the file and the key.
    """
    given = read(path)
    if "early_terminate" in given:
        raise SweepError(f"{path}: early_terminate is not supported, every trial runs to its end; take that key out.")
    if unknown := sorted(set(map(str, given)) - _KEYS - _IGNORED):
        raise SweepError(f"{path}: unknown key {shown(unknown[0])}; known are {', '.join(sorted(_KEYS))}.")
    method = given.get("method")
    if method not in get_args(Method):
        raise SweepError(f"{path}: method is {shown(method)}; choose one of {', '.join(get_args(Method))}.")
    metric, goal = _metric(path, given.get("metric"))
    parameters = given.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise SweepError(f"{path}: parameters is {shown(parameters)}; name at least one option with its values.")
    spaces = {str(name): _space(f"{path}: parameters.{name}", said) for name, said in parameters.items()}
    for name, space in spaces.items():
        if method == "grid" and isinstance(space, Range) and not space.whole:
            raise SweepError(f"{path}: parameters.{name} is a range, which a grid cannot take; give values.")
    cap = given.get("run_cap")
    if cap is not None and (not _is_whole(cap) or cap < 1):
        raise SweepError(f"{path}: run_cap is {shown(cap)}; give a whole number of at least 1.")
    ignored = tuple(sorted(_IGNORED & set(given)))
    if not isinstance(given.get("program"), str | None):
        raise SweepError(f"{path}: program is {shown(given['program'])}; give the path of a script.")
    command = _command(path, given.get("command"), given.get("program"))
    return Sweep(path, cast(Method, method), metric, goal, spaces, command, given.get("program"), cap, ignored)


def _metric(path: Path, said: Any) -> tuple[str, Goal]:
    if not isinstance(said, dict) or not isinstance(said.get("name"), str):
        raise SweepError(f"{path}: metric is {shown(said)}; give its name, a column of metrics.csv, and its goal.")
    goal = said.get("goal", "minimize")
    if goal not in get_args(Goal):
        raise SweepError(f"{path}: metric.goal is {shown(goal)}; choose one of {', '.join(get_args(Goal))}.")
    return said["name"], goal


def _command(path: Path, said: Any, program: Any) -> tuple[str, ...]:
    if said is None and program is None:
        raise SweepError(f"{path}: there is neither command nor program; give command, as in configs/sweeps/.")
    if said is None:
        return DEFAULT_COMMAND
    if not isinstance(said, list) or not said or not all(isinstance(part, (str, int, float)) for part in said):
        raise SweepError(f"{path}: command is {shown(said)}; give a list of its parts.")
    command = tuple(map(str, said))
    for part in command:
        if part.startswith("${") and part not in DEFAULT_COMMAND:
            raise SweepError(f"{path}: command has {part}, which is not known here; use {', '.join(DEFAULT_COMMAND)}.")
    if "${args}" not in command:
        raise SweepError(f"{path}: command lacks ${{args}}, so no parameter would reach the trial; add it.")
    if "${program}" in command and program is None:
        raise SweepError(f"{path}: command has ${{program}}, but there is no key program.")
    return command


def _space(where: str, said: Any) -> Choice | Range:
    if not isinstance(said, dict):
        raise SweepError(f"{where} is {shown(said)}; give value, values, or min and max.")
    known = {"value", "values", "min", "max", "distribution", "q"}
    if unknown := sorted(set(map(str, said)) - known):
        raise SweepError(f"{where}: {shown(unknown[0])} is not known here; use {', '.join(sorted(known))}.")
    kind = said.get("distribution") or _kind(said)
    if kind not in DISTRIBUTIONS:
        raise SweepError(f"{where}.distribution is {shown(kind)}; choose one of {', '.join(DISTRIBUTIONS)}.")
    if kind == "constant":
        if "value" not in said:
            raise SweepError(f"{where} lacks value.")
        return Choice((said["value"],))
    if kind == "categorical":
        values = said.get("values")
        if not isinstance(values, list) or not values:
            raise SweepError(f"{where}.values is {shown(values)}; give a list of at least one value.")
        return Choice(tuple(values))
    return _range(where, kind, said)


def _kind(said: dict[str, Any]) -> str:
    if "value" in said:
        return "constant"
    if "min" in said or "max" in said:
        return "int_uniform" if all(_is_whole(said.get(end)) for end in ("min", "max")) else "uniform"
    return "categorical"


def _range(where: str, kind: str, said: dict[str, Any]) -> Range:
    for end in ("min", "max"):
        if not is_number(said.get(end)) or (kind == "int_uniform" and not _is_whole(said[end])):
            raise SweepError(
                f"{where}.{end} is {shown(said.get(end))}; give a {'whole ' * (kind == 'int_uniform')}number."
            )
    low, high = said["min"], said["max"]
    if low > high:
        raise SweepError(f"{where}: min {shown(low)} is above max {shown(high)}.")
    if not math.isfinite(float(high) - float(low)) or (kind == "int_uniform" and max(-low, high) > 1 << 53):
        raise SweepError(f"{where}: from {shown(low)} to {shown(high)} is too far for numbers to be drawn.")
    if kind == "log_uniform":  # W&B gives the exponents of e
        if high > math.log(sys.float_info.max):
            raise SweepError(f"{where}.max is {shown(high)}, of which e to that power is beyond all range.")
        low, high = math.exp(low), math.exp(high)
    log = kind.startswith("log_")
    if log and low <= 0:
        raise SweepError(f"{where}.min is {low}; a logarithm needs a number above 0.")
    step = said.get("q", 1.0) if kind == "q_uniform" else None
    if step is not None and (not is_number(step) or step <= 0):
        raise SweepError(f"{where}.q is {shown(step)}; give a number above 0.")
    return Range(low, high, whole=kind == "int_uniform", log=log, step=step)


def _size(space: Choice | Range) -> int:
    return len(space.values) if isinstance(space, Choice) else int(space.high) - int(space.low) + 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
