"""Where a run computes: names that accelerators and strategies are registered by, read from Lightning's source and ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from atmanrl.commands.options.source import modules_of
from atmanrl.errors import did_you_mean

_ROOMS = {
    "accelerator": ("lightning.pytorch.accelerators",),
    "strategy": ("lightning.pytorch.strategies", "lightning.pytorch._graveyard", "atmanrl.distributed"),
}
_NO_CLASSES = {"accelerator": ("auto", "gpu"), "strategy": ("auto",)}
_DEVICES = re.compile(r"auto|-?\d+|\d+(\s*,\s*\d+)*,?")


def machine_refusal(options: Mapping[str, Any]) -> str | None:
    """Return why an accelerator, a strategy or devices are none that Lightning knows; None where it may know them.

    Whether they are there is for PyTorch to say.

    Args:
        options: of the trainer, by name, as they were typed.

    Example:
        "trainer.accelerator: 'gpus' is an invalid accelerator name; did you mean gpu?"
    """
    for option in _ROOMS:
        name = options.get(option)
        if isinstance(name, str) and (name.lower() if option == "strategy" else name) not in registered(option):
            names = sorted(registered(option))
            hint = did_you_mean(name, names) or f"there are {', '.join(names)}."
            return f"trainer.{option}: {name!r} is an invalid {option} name; {hint}"
    devices = options.get("devices")
    if isinstance(devices, str) and not _DEVICES.fullmatch(devices.strip()) and not devices.startswith("["):
        return f"trainer.devices is {devices!r}; give how many (2), GPUs by their numbers (0,1), -1 for all, or auto."
    if str(devices).strip() == "0":
        return "trainer.devices is 0; give at least 1, or auto."
    if options.get("accelerator") == "cpu" and re.fullmatch(r"-\d+", str(devices)):
        return f"trainer.devices is {devices}: `devices` selected with `CPUAccelerator` should be an int > 0."
    return None


@cache
def registered(option: str) -> frozenset[str]:
    """Return the names of accelerators or strategies, by which Lightning's classes and ours are registered."""
    names = {name for room in _ROOMS[option] for tree in modules_of(room) for name in _names(tree)}
    return frozenset({*names, *_NO_CLASSES[option]})


def _names(tree: ast.Module) -> Iterator[str]:
    """The names in a module: what `register` is given first, or gets from a name, an attribute or a list of tuples."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "register":
            yield from _texts(*node.args[:1])
        elif isinstance(node, ast.FunctionDef) and node.name == "register_strategies":
            yield from _texts(*(each.elts[0] for each in ast.walk(node) if isinstance(each, ast.Tuple)))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "strategy_name":
            yield from _texts(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name == "name":
            yield from _texts(*(each.value for each in node.body if isinstance(each, ast.Return) and each.value))


def _texts(*nodes: ast.expr) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
