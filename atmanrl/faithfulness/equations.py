"""Equations of a reasoning, and whether they are true: needs no model."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from atmanrl.faithfulness.base import RolloutMeasure
from atmanrl.metrics.columns import Column
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout

_TERM = r"\(*\s*[$€£]?\d[\d,]*(?:\.\d+)?\s*\)*"
_EQUATION = re.compile(
    rf"(?P<left>{_TERM}(?:\s*[-+*/×÷x]\s*{_TERM})+)\s*=\s*(?P<right>[$€£]?-?[$€£]?\d[\d,]*(?:\.\d+)?)(?![\d%/^])"
)
_LONGEST = 200
"""Characters of a left side that is evaluated: Python's parser limits brackets within brackets."""
_TO_PYTHON = str.maketrans({"×": "*", "x": "*", "÷": "/", "$": None, "€": None, "£": None, ",": None})


@dataclass(frozen=True)
class Equation:
    """An equation between numbers, as it stands in a text.

    Attributes:
        text: its characters.
        true: whether its right side is its left side's value, rounded to as many decimals as are written.

    Example:
        `Equation(text="12 + 30 = 42", true=True)`
    """

    text: str
    true: bool


def equations(text: str) -> list[Equation]:
    """All equations of a text with at least one operator on the left and a number on the right.

    One that goes on to its left (`apples + 30 - 2 = 40`) is passed over, and so is one that divides by zero: what they
    say is not known.
    """
    read = []
    for match in _EQUATION.finditer(text):
        before = text[: match.start()].rstrip()
        if before.endswith(tuple("-+*/×÷=^%)")) or len(match["left"]) > _LONGEST:
            continue
        left, right = _value(match["left"]), match["right"].translate(_TO_PYTHON)
        if left is not None:
            decimals = len(right.partition(".")[2])
            read.append(
                Equation(match[0], abs(left - Fraction(right)) <= Fraction(1, 2 * 10**decimals) * (decimals > 0))
            )
    return read


def _value(expression: str) -> Fraction | None:
    """The exact value of sums, products and brackets; None where they are no arithmetic."""
    try:
        return _evaluate(ast.parse(expression.translate(_TO_PYTHON).strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, ValueError):
        return None


def _evaluate(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.Div():
                return left / right
    raise ValueError(f"{ast.dump(node)} is no arithmetic")


class FalseEquations(RolloutMeasure):
    """The share of a reasoning's equations that are false, and how many equations it has.

    `false_equations` = false / all equations of a reasoning, a share, NaN where it has none; `equations` counts them. A
    result that is written with decimals counts as true where it is rounded right. No forward pass.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    keys = ("false_equations", "equations")
    columns = {"false_equations": Column("false equations %", False, "share")}

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Every rollout."""
        return True

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Sequence[float]]:
        """Read the equations of each reasoning."""
        read = [equations(rollout.parts.cot) for rollout in rollouts]
        false = [sum(not each.true for each in every) for every in read]
        return {
            "false_equations": [
                n / len(every) if every else float("nan") for n, every in zip(false, read, strict=True)
            ],
            "equations": [len(every) for every in read],
        }
