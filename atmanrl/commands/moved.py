"""Options with a new name: an old one is answered by the new."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

LOSS = (
    "epsilon", "epsilon_high", "beta", "use_bias_correction_kl", "loss_type", "importance_sampling_level",
    "mask_truncated_completions",
)  # fmt: skip
"""Options of the model that moved into its loss."""
RENAMED = {"composition.pipeline": "metrics.composition.pipeline"}
"""Options of earlier versions and their names now."""
MODULES = {"policy": "atmanrl.models.policy"}
"""Modules of `atmanrl` that earlier configs name in class paths, and where they are now."""


def moved(message: str, typed: Sequence[str]) -> str | None:
    """Return a sentence with the new place of a refused option; None if it never was an option of the model.

    Args:
        message: the parser's refusal.
        typed: the arguments of the command.
    """
    refused = re.search(r"Option '(\w+)' is not accepted", message)
    if refused is None or refused[1] not in LOSS or refused[1] not in _of_the_model(typed):
        return None
    name = refused[1]
    return (
        f"model.{name} is an option of the loss now: give model.loss.init_args.{name} with model.loss.class_path: "
        f"ClippedLoss (typed: --model.loss=ClippedLoss --model.loss.{name}=...)."
    )


def renamed(message: str) -> str | None:
    """Return a sentence with the new name of an option or a class path that a parser does not know; None if it has none."""
    module = re.search(r"module 'atmanrl' has no attribute '(\w+)'", message)
    if module is not None and module[1] in MODULES:
        return (
            f"the module atmanrl.{module[1]} is now called {MODULES[module[1]]}; name it so in the config's class_path."
        )
    unknown = re.search(r"(?:unrecognized arguments: --|[Oo]ption ')([\w.]+)", message)
    if unknown is None or unknown[1] not in RENAMED:
        return None
    return f"{unknown[1]} is now called {RENAMED[unknown[1]]}; name it so on the command line and in the config."


def _of_the_model(typed: Sequence[str]) -> set[str]:
    """Return the names of the model's options in a command, typed or in its config files."""
    names: set[str] = set()
    for place, argument in enumerate(typed):
        key, equals, text = argument.partition("=")
        if option := re.fullmatch(r"--model\.(?:init_args\.)?(\w+)", key):
            names.add(option[1])
        elif key in ("--config", "-c"):
            names.update(_in_file(Path(text if equals else "".join(typed[place + 1 : place + 2]))))
    return names


def _in_file(path: Path) -> Iterator[str]:
    """Yield the names of the model's options in a config file, at its top or under a command's name."""
    try:
        config: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # the parser reports that
    for part in (config, *(config.values() if isinstance(config, dict) else ())):
        model = part.get("model") if isinstance(part, dict) else None
        options = model.get("init_args") if isinstance(model, dict) else None
        yield from options if isinstance(options, dict) else ()
