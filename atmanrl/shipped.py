"""What travels with the package: its configurations, and the laptop policy that some of them name.

In a clone they lie where they are edited, in `configs/` and `experiments/laptop/`. `setup.py` puts them into the wheel under
the same paths, beneath `atmanrl/shipped_files/`; it reads `PATHS` from this file, which therefore imports the standard
library alone. So `experiments/laptop/policy` names the same folder in a clone, and in any folder after an installation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

PATHS = ("configs", "experiments/laptop/policy", "experiments/laptop/blank")
"""Folders of the repository, relative to its root."""

_NAME = re.compile(r"\w[\w-]*(/\w[\w-]*)?")


def root() -> Path:
    """Return the folder that holds the shipped paths: in the installed package, or the clone."""
    installed = Path(__file__).parent / "shipped_files"
    return installed if installed.is_dir() else Path(__file__).parents[1]


def located(path: str) -> str:
    """Return where a file or folder lies: here, or among what is shipped.

    Args:
        path: as a user or a configuration names it.

    Returns:
        The path itself where it exists from the current folder, or where nothing of that name is shipped.

    Example:
        `located("experiments/laptop/policy")`, in a folder that has none, is that of the package:
        `.../site-packages/atmanrl/shipped_files/experiments/laptop/policy`.
    """
    parts = PurePosixPath(path).parts
    shipped = any(parts[: len(each)] == each for each in (PurePosixPath(name).parts for name in PATHS))
    if os.path.exists(path) or not shipped or ".." in parts or not (root() / path).exists():
        return path
    return str(root() / path)


def config_file(name: str) -> str:
    """Return the file of a configuration: a path, or the name of a shipped one.

    A file in the current folder comes before a shipped one of the same name, also where its `.yaml` is left out.

    Args:
        name: `own.yaml`, `laptop`, `sweeps/reward_weight`, `configs/laptop.yaml`, ...

    Returns:
        The path of the file; `name` itself where there is none, as the reader of the file will say.
    """
    if os.path.isfile(name):
        return name
    stem = name.removesuffix(".yaml")
    if _NAME.fullmatch(stem):
        shipped = root() / "configs" / f"{stem}.yaml"
        if os.path.isfile(f"{stem}.yaml"):
            return f"{stem}.yaml"
        if shipped.is_file():
            return str(shipped)
    return located(name)


def configs() -> dict[str, Path]:
    """Return the shipped configurations by their names."""
    folder = root() / "configs"
    files = sorted(folder.rglob("*.yaml"), key=lambda file: (len(file.parts), file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def needs(file: Path) -> list[str]:
    """Return the shipped paths that a configuration names, in order, each once; comments name none."""
    lines = [line.split("#")[0] for line in file.read_text(encoding="utf-8").splitlines()]
    named = re.findall(rf"\b(?:{'|'.join(map(re.escape, PATHS))})\b[\w./-]*", "\n".join(lines))
    return list(dict.fromkeys(named))
