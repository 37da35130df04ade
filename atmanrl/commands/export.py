"""`atmanrl export`: a checkpoint as a Hugging Face folder, or as one file that any number of processes can resume."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from transformers.utils import logging as transformers_logging

from atmanrl.checkpoint.files import checkpoint_path
from atmanrl.commands.parser import brief
from atmanrl.distributed import slices
from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import atomic_file, atomic_folder, disks_own_errors, user_path
from atmanrl.models.policy import Policy

PREFIX = "policy.model."
"""What the names of the policy's weights begin with in a checkpoint."""


class ExportError(UserError):
    """A checkpoint cannot be exported; the message names it and says what to do."""


def main(args: Sequence[str]) -> int:
    """Export a checkpoint; returns the exit status."""
    given = _parser().parse_args(args)
    transformers_logging.disable_progress_bar()
    path = _found(given.ckpt)
    if given.out.exists():
        raise ExportError(f"{given.out} exists already; choose another --out.")
    if given.out.suffix == ".ckpt":
        export_checkpoint(path, given.out)
    else:
        merge = None if given.merge_lora is None else given.merge_lora == "true"
        policy = policy_of(path, given.config, given.policy, merge, given.trust_remote_code)
        export_policy(path, given.out, policy, given.dtype)
    print(escape.terminal(f"{given.out} written."))
    return 0


def export_policy(path: Path, out: Path, policy: Policy, dtype: str | None = None) -> None:
    """Write a checkpoint's policy, its tokenizer included, in Hugging Face format.

    Raises:
        CheckpointError: there is no checkpoint, or it is broken.
        PolicyError: it is another model's.
        ExportError: it holds no policy.
    """
    checkpoint = slices.read(path, optimizers=False)
    weights = {
        name.removeprefix(PREFIX): weight
        for name, weight in checkpoint.get("state_dict", {}).items()
        if name.startswith(PREFIX)
    }
    if not weights:
        raise ExportError(f"{path} holds no policy: no weight's name begins with {PREFIX}")
    policy = policy.with_weights(weights)
    with atomic_folder(out) as temporary:
        policy.save(temporary, dtype)


def export_checkpoint(path: Path, out: Path) -> None:
    """Write a sharded checkpoint as one file.

    Raises:
        ExportError: it is one file already.
        CheckpointError: there is no checkpoint, or it is broken.
    """
    if path.is_file():
        raise ExportError(f"{path} is one file already.")
    checkpoint = slices.read(path)
    with atomic_file(out) as temporary, temporary.open("wb") as file, disks_own_errors():
        torch.save(checkpoint, file)


def policy_of(
    path: Path,
    config: Path | None,
    model: str | None = None,
    merge: bool | None = None,
    trust_remote_code: bool = False,
) -> Policy:
    """The policy that a run's config names, with nothing loaded.

    Args:
        path: the checkpoint, in `checkpoints/` of its run.
        config: the run's `config.yaml`; None takes the one beside `checkpoints/`.
        model: folder or name of the model, where it is no longer where the config says.
        merge: whether adapters are merged; None does as the config says.
        trust_remote_code: whether code that comes with the model may run, whatever the config says.

    Raises:
        ExportError: no config, none with a policy, or one that asks for code that is not trusted.
    """
    file = config or path.resolve().parent.parent / "config.yaml"
    if not file.is_file():
        raise ExportError(f"there is no {file}; name the run's config.yaml by --config.")
    try:
        options: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ExportError(f"{file} is no YAML that can be read ({' '.join(str(error).split())}).") from error
    for key in ("model", "init_args", "policy"):
        options = options.get(key) if isinstance(options, dict) else None
    if not isinstance(options, dict):
        raise ExportError(f"{file} names no model.init_args.policy.")
    options = options.get("init_args", options)
    own = {"trust_remote_code": trust_remote_code} | ({} if model is None else {"path": model})
    if isinstance(options, dict) and options.get("trust_remote_code") and not trust_remote_code:
        raise ExportError(
            f"{file} asks to run code that comes with the model {model or options.get('path')}: if you trust its author, "
            "add --trust_remote_code."
        )
    policy = _made(options | own if isinstance(options, dict) else options, file)
    if merge is not None:
        if policy.lora is None:
            raise ExportError(f"{file} has no model.init_args.policy.lora: leave --merge_lora out.")
        policy.lora = replace(policy.lora, export="merged" if merge else "adapter")
    return policy


def _made(options: Any, file: Path) -> Policy:
    """The policy of options from a file, whose names and types are those of `Policy` itself."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Policy, "policy")
    try:
        policy: Policy = parser.instantiate_classes(parser.parse_object({"policy": options})).policy
    except ArgumentError as error:
        raise ExportError(f"{file}: model.init_args: {brief(str(error))}") from error
    return policy


def _found(path: Path) -> Path:
    path = checkpoint_path(path)
    if not path.exists():
        raise ExportError(f"there is no checkpoint {path}.")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atmanrl export",
        description="Write the policy of a checkpoint, sharded or full, as a Hugging Face folder with its tokenizer. "
        "With --out NAME.ckpt a sharded checkpoint becomes one file, which can be resumed on any number of processes.",
    )
    parser.add_argument("--ckpt", type=user_path, required=True, help="RUN/checkpoints/NAME.ckpt, a file or a folder")
    parser.add_argument("--out", type=user_path, required=True, help="folder to be made, or a file that ends in .ckpt")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights (default: theirs)")
    parser.add_argument(
        "--merge_lora", choices=("true", "false"), help="merge adapters, or write them alone (default: as configured)"
    )
    parser.add_argument("--config", type=user_path, help="the run's config.yaml (default: RUN/config.yaml)")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="let code that comes with the model run (default: never)"
    )
    parser.add_argument("--policy", help="the model's folder, where it is no longer where the config says")
    return parser
