"""A sweep's file: W&B's sweep format, read and checked before anything runs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Required, cast

from annotated_types import Ge, Gt, MinLen
from pydantic import ConfigDict, PlainValidator, with_config
from typing_extensions import TypedDict

from atmanrl.io.jsonl import is_number
from atmanrl.io.records import RecordError, check_record
from atmanrl.sweep.yaml_file import SweepError, read, shown

__all__ = ["Choice", "Goal", "Method", "Range", "Sweep", "SweepError", "load"]

Method = Literal["grid", "random", "bayes"]
Goal = Literal["minimize", "maximize"]
DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
IGNORED = ("controller", "job")
"""Keys of W&B's that have no effect here."""


def _number(value: Any) -> int | float:
    if not is_number(value):
        raise ValueError("give a number")
    return cast("int | float", value)


Number = Annotated[Any, PlainValidator(_number)]


@with_config(ConfigDict(extra="forbid"))
class ParameterFile(TypedDict, total=False):
    """A parameter as it is written: `{min: 0.1, max: 10, distribution: log_uniform_values}`."""

    value: Any
    values: Annotated[list[Any], MinLen(1)]
    min: Number
    max: Number
    q: Annotated[Number, Gt(0)]
    distribution: Literal[
        "constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform", "log_uniform_values"
    ]


class MetricFile(TypedDict, total=False):
    """A metric as it is written: `{name: val/pass_at_1, goal: maximize}`."""

    name: Required[str]
    goal: Goal


@with_config(ConfigDict(extra="forbid"))
class SweepFile(TypedDict, total=False):
    """A sweep as it is written; see `configs/sweeps/`."""

    method: Required[Method]
    metric: Required[MetricFile]
    parameters: Required[Annotated[dict[str, ParameterFile], MinLen(1)]]
    command: Annotated[list[str | int | float], MinLen(1)] | None
    program: str | None
    run_cap: Annotated[int, Ge(1)] | None
    name: Any
    description: Any
    project: Any
    entity: Any
    controller: Any
    job: Any


@dataclass(frozen=True)
class Choice:
    """Values of which a trial takes one; any YAML value.

    Example:
        `Choice((0.0, 1.0, 3.0, 10.0))`
    """

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

    Example:
        `Range(1e-7, 1e-5, log=True)`
    """

    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, checked.

    Attributes:
        path: the file.
        method: how points are chosen.
        metric: a column of `metrics.csv`, or `test/...` of `eval/test.json`.
        goal: which way is better.
        parameters: by the name of the option.
        command: of a trial, with W&B's macros.
        program: for the macro `${program}`.
        run_cap: most trials; None if the file does not say.
        ignored: keys of the file that have no effect here.

    Example:
        `Sweep(Path("s.yaml"), "grid", "val/pass_at_1", "maximize", {"model.rewards.saliency.weight": Choice((0.0, 1.0))},
        ("${env}", "${interpreter}", "-m", "atmanrl", "fit", "${args}"))`
    """

    path: Path
    method: Method
    metric: str
    goal: Goal
    parameters: dict[str, Choice | Range]
    command: tuple[str, ...]
    program: str | None = None
    run_cap: int | None = None
    ignored: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many points the grid has."""
        return math.prod(len(_axis(space)) for space in self.parameters.values())

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield all combinations, the last parameter changing fastest."""
        for number in range(self.size):  # `itertools.product` would build every range first
            point = {}
            for name, space in reversed(self.parameters.items()):
                number, place = divmod(number, len(_axis(space)))
                point[name] = _axis(space)[place]
            yield {name: point[name] for name in self.parameters}

    def identity(self) -> dict[str, Any]:
        """Return what must stay the same for a folder's sweep to go on."""
        space = {name: [type(s).__name__, *vars(s).values()] for name, s in self.parameters.items()}
        own = {"method": self.method, "parameters": space, "command": self.command, "program": self.program}
        return cast("dict[str, Any]", json.loads(json.dumps(own)))


def load(path: Path) -> Sweep:
    """Read a sweep's file.

    Raises:
        SweepError: it cannot be used; the message names the file and the key.
    """
    values = read(path)
    if "early_terminate" in values:
        raise SweepError(f"{path}: early_terminate is not supported, every trial runs to its end; take that key out.")
    try:
        file = check_record(values, SweepFile, str(path), "see docs/sweeps.md")
    except RecordError as error:
        raise SweepError(str(error)) from error
    method, metric, program = file["method"], file["metric"], file.get("program")
    spaces = {name: _space(f"{path}: parameters.{name}", said) for name, said in file["parameters"].items()}
    for name, space in spaces.items():
        if method == "grid" and isinstance(space, Range) and not space.whole:
            raise SweepError(f"{path}: parameters.{name} is a range, which a grid cannot take; give values.")
    return Sweep(
        path, method, metric["name"], metric.get("goal", "minimize"), spaces, _command(path, file.get("command"), program),
        program, file.get("run_cap"), tuple(key for key in IGNORED if key in values),
    )  # fmt: skip


def _command(path: Path, parts: list[Any] | None, program: str | None) -> tuple[str, ...]:
    if parts is None and program is None:
        raise SweepError(f"{path}: there is neither command nor program; give command, as in configs/sweeps/.")
    command = DEFAULT_COMMAND if parts is None else tuple(map(str, parts))
    for part in command:
        if part.startswith("${") and part not in DEFAULT_COMMAND:
            raise SweepError(f"{path}: command has {part}, which is not known here; use {', '.join(DEFAULT_COMMAND)}.")
    if "${args}" not in command:
        raise SweepError(f"{path}: command lacks ${{args}}, so no parameter would reach the trial; add it.")
    if "${program}" in command and program is None:
        raise SweepError(f"{path}: command has ${{program}}, but there is no key program.")
    return command


def _space(where: str, said: ParameterFile) -> Choice | Range:
    kind = said.get("distribution") or _kind(said)
    wanted = {"constant": ("value",), "categorical": ("values",)}.get(kind, ("min", "max"))
    for key in wanted:
        if key not in said:
            raise SweepError(f"{where} lacks {key}; give value, values, or min and max.")
    if kind == "constant":
        return Choice((said["value"],))
    if kind == "categorical":
        return Choice(tuple(said["values"]))
    low, high = said["min"], said["max"]
    if kind == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
        raise SweepError(f"{where}: min and max are {shown(low)} and {shown(high)}; give whole numbers.")
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
    return Range(low, high, kind == "int_uniform", log, said.get("q", 1.0) if kind == "q_uniform" else None)


def _axis(space: Choice | Range) -> Sequence[Any]:
    return space.values if isinstance(space, Choice) else range(int(space.low), int(space.high) + 1)


def _kind(said: ParameterFile) -> str:
    if "value" in said:
        return "constant"
    if "min" in said or "max" in said:
        return "int_uniform" if isinstance(said.get("min"), int) and isinstance(said.get("max"), int) else "uniform"
    return "categorical"
