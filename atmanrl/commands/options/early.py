"""What can be refused by a look at the disk, before anything is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from atmanrl.commands.options.typed import Node
from atmanrl.errors import UserError
from atmanrl.io.run_layout import COMMAND, check_free
from atmanrl.shipped import located

DEFAULT_FOLDER = "runs/unnamed"
"""The folder of a run that names none."""
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Variables by which launchers number the processes of a run."""


def is_first_process(environment: Mapping[str, str]) -> bool:
    """Whether this is the first process of its run, or the only one, as far as launchers say."""
    return all(environment.get(name, "0") == "0" for name in RANKS)


def check_policy(root: Node) -> None:
    """Refuse a policy's path that can be a folder alone, where there is none.

    Raises:
        UserError: there is no such folder.
    """
    check_model(root.at("model", "policy", "path"))


def check_model(node: Node | None) -> None:
    """Refuse an option that names a model, as `check_policy` does.

    Raises:
        UserError: there is no such folder or file.
    """
    if node is not None and isinstance(node.value, str) and is_missing_folder(node.value):
        kind = "file" if node.value.endswith(".gguf") else "folder"
        raise UserError(
            f"{node.place}: there is no such {kind}, {node.value}; give a folder in Hugging Face format, or a name on the "
            "hub, such as Qwen/Qwen2.5-0.5B-Instruct."
        )


def is_missing_folder(path: str) -> bool:
    """Whether a model's path cannot be a name on the hub, `model` or `owner/model`, and is no folder either."""
    local = path.startswith(("/", ".", "~")) or path.endswith("/") or path.count("/") > 1
    return local and not Path(located(path)).expanduser().exists()


def check_folder(command: str, root: Node) -> None:
    """Refuse a new run in a folder that holds one; `RunFolder` does so again when it takes the folder.

    Raises:
        UserError: the folder is taken.
    """
    trial, folder, checkpoint = (
        root.at("trainer", "fast_dev_run"),
        root.at("trainer", "default_root_dir"),
        root.at("ckpt_path"),
    )
    if command != COMMAND or (trial is not None and trial.value):
        return
    named = DEFAULT_FOLDER if folder is None or folder.value is None else str(folder.value)
    if is_first_process(os.environ):  # another may have begun to write there
        check_free(Path(named).expanduser(), None if checkpoint is None else checkpoint.value)
