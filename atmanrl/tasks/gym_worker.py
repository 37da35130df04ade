"""A generator of reasoning-gym, as it runs in a process of its own: what it draws, and how it scores answers.

Some generators draw other problems where Python hashes texts otherwise, some draw from the global random state, and some
scorers evaluate an answer as Python or run for minutes on it. In a process with a fixed hash seed, which can be stopped,
none of this touches a run. This module is imported there; the package itself only when a `Generator` is made.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import json
import random
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from enum import Enum
from io import StringIO
from typing import Any

import numpy as np

from atmanrl.errors import did_you_mean, first_line
from atmanrl.io.jsonl import is_text

CHUNK = 250
"""Problems of one seed of a generator."""

FULL_SCORE = 1.0

_NONSENSE = "(no answer)"
_NOT_A_NUMBER = re.compile(r"\bnan[ij]?\b", re.IGNORECASE)  # which is as near to every number as any, to a scorer
_EVALUATION = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
_MIXTURE = "composite"

_NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.Load, ast.Call, ast.List, ast.Tuple, ast.Add,
    ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitXor, ast.UAdd, ast.USub,
)  # fmt: skip
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc asin acos atan acot sinh cosh tanh asinh acosh atanh exp log ln sqrt Abs abs erf".split()
)
_LARGEST_EXPONENT = 100


class Generator:
    """One generator with its configuration.

    Args:
        name: as reasoning-gym registers it, such as `spell_backward`.
        config: fields of its configuration.
    """

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        from reasoning_gym.factory import DATASETS, create_dataset

        self.name, self.config = name, config
        self.registered, self.create = DATASETS, create_dataset
        self.seed: int | None = None
        self.dataset: Any = None
        self.evaluates = False

    def __call__(self, method: str, arguments: Mapping[str, Any], **_: Any) -> Any:
        """Call one of the methods by its name, as the process is asked to; what generators and scorers print is dropped."""
        with redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(self, method)(**arguments)

    def fault(self) -> str | None:
        """Return what is wrong with the name or the configuration, and what there is instead; None where nothing is."""
        names = sorted(name for name in self.registered if name != _MIXTURE)
        if self.name == _MIXTURE:
            return "composite mixes generators: use MixtureTask, with a ReasoningGym for each of them."
        if self.name not in self.registered:
            hint = did_you_mean(self.name, names) or ""
            return f"there is no generator {self.name!r}{'; ' if hint else '.'}{hint} There are {', '.join(names)}."
        defaults = self._defaults()
        for field in self.config:
            if field in ("seed", "size"):
                return f"config.{field} is set by the task's own seed, train_size and test_size; leave it out."
            if field not in defaults:
                hint = did_you_mean(field, defaults) or ""
                fields = ", ".join(f"{name} ({default!r})" for name, default in defaults.items()) or "none"
                return f"{self.name} has no field {field!r}{'; ' if hint else '.'}{hint} Its fields and defaults: {fields}."
        try:
            self._open(0)
        except Exception as error:  # each generator checks its fields by assertions and errors of its own
            given = ", ".join(f"{name}={value!r}" for name, value in self.config.items())
            return f"{self.name} does not take {given or 'its defaults'}: {type(error).__name__}: {first_line(error)}"
        return None

    def draw(self, seed: int, first: int, count: int) -> list[tuple[dict[str, Any], str] | str]:
        """Draw problems of a seed, from number `first` on, below `CHUNK`.

        Returns:
            Of each, its entry with the gold answer, which is empty where the generator knows none (see `_gold`); or the
            message of the error that it ended in.
        """
        self._open(seed)
        return [self._drawn(number) for number in range(first, min(first + count, CHUNK))]

    def score(self, answer: str, entry: dict[str, Any]) -> float | None:
        """Return the score of an answer, from 0 to 1; None where the scorer cannot read it.

        An answer that would do something if it were evaluated scores 0 where the scorer evaluates. Where a scorer gives
        full marks to any text, only the gold answer has them.
        """
        if self.dataset is None:
            self._open(0)
        gold = str(entry["answer"] or "").strip()
        if (self.evaluates and not is_harmless(answer)) or (
            _NOT_A_NUMBER.search(answer) and not _NOT_A_NUMBER.search(gold)
        ):
            return 0.0
        score = self._marks(answer, entry)
        if score is None or score < FULL_SCORE:
            return score
        takes_all = self._marks(_NONSENSE, entry) == FULL_SCORE
        return float(answer.strip() == gold) if takes_all else score

    def _marks(self, answer: str, entry: dict[str, Any]) -> float | None:
        try:
            return float(self.dataset.score_answer(answer, entry))
        except Exception:  # a policy may write anything, and scorers raise whatever their parsers do
            return None

    def _defaults(self) -> dict[str, Any]:
        fields = dataclasses.fields(self.registered[self.name][1])
        factory = dataclasses.MISSING
        return {
            field.name: field.default if field.default_factory is factory else field.default_factory()
            for field in fields
            if field.name not in ("seed", "size")
        }

    def _open(self, seed: int) -> None:
        if self.seed == seed:
            return
        defaults = self._defaults()
        config = {name: _converted(value, defaults[name]) for name, value in self.config.items()}
        _seed_globally(seed)
        self.dataset, self.seed = self.create(self.name, **config, seed=seed, size=CHUNK), seed
        self.evaluates = bool(_EVALUATION.search(inspect.getsource(type(self.dataset).score_answer)))

    def _drawn(self, number: int) -> tuple[dict[str, Any], str] | str:
        assert self.seed is not None
        _seed_globally(self.seed + number)
        try:
            entry = dict(self.dataset[number])
        except Exception as error:  # some give up on a draw, after so many attempts
            return f"{type(error).__name__}: {first_line(error)}"
        gold = self._gold(entry)
        if gold is None:
            return "the scorer does not give full marks to the gold answer"
        return {**entry, "question": str(entry["question"])}, gold

    def _gold(self, entry: dict[str, Any]) -> str | None:
        """Return the gold answer, one of those in the metadata where many are right, or an empty text where there is none.

        Returns:
            None where there is one and the scorer does not take it, without white space around it, for right.
        """
        if entry["answer"] is not None:
            gold = str(entry["answer"]).strip()
            return gold if gold and is_text(gold) and self._is_right(gold, entry) else None
        examples = [value for key, value in entry["metadata"].items() if "answer" in key]
        texts = [value if isinstance(value, str) else json.dumps(value) for value in examples]
        return next((text.strip() for text in texts if self._is_right(text.strip(), entry)), "")

    def _is_right(self, answer: str, entry: dict[str, Any]) -> bool:
        score = self.score(answer, entry)
        return score is not None and score >= FULL_SCORE


def is_harmless(answer: str) -> bool:
    """Return whether evaluating a text as Python, or as an expression of sympy, computes a formula or a list at most.

    Only such functions as `sin` are called, powers are small, and texts and lists are not multiplied. What is no Python
    calls nothing as long as it has no parenthesis.
    """
    try:
        nodes = list(ast.walk(ast.parse(answer.strip(), mode="eval")))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "(" not in answer
    return all(_is_harmless_node(node) for node in nodes)


def _is_harmless_node(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.BinOp):
        if any(isinstance(part, ast.List | ast.Tuple) or _is_string(part) for part in (node.left, node.right)):
            return False
        if isinstance(node.op, ast.Pow):
            within = list(ast.walk(node.right))
            return not any(isinstance(each, ast.Pow) for each in within) and all(
                abs(each.value) <= _LARGEST_EXPONENT
                for each in within
                if isinstance(each, ast.Constant) and isinstance(each.value, int | float)
            )
    return isinstance(node, _NODES)


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _converted(value: Any, default: Any) -> Any:
    """Return a value as YAML gives it in the type of a field's default."""
    if isinstance(default, Enum):
        return type(default)(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        return type(default)(_converted(each, default[0]) if default else each for each in value)
    if isinstance(default, datetime.date | datetime.time) and isinstance(value, str):
        return type(default).fromisoformat(value)
    if dataclasses.is_dataclass(default) and isinstance(value, dict):
        return dataclasses.replace(default, **value)  # type: ignore[type-var]
    return value


def _seed_globally(seed: int) -> None:
    """Seed what a few generators draw from, beside their own random numbers."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
