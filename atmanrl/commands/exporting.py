"""What `atmanrl export` does: a checkpoint's weights in a policy, and a sharded checkpoint as one file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from atmanrl.checkpoint.base_model import KEY, PREFIX, check_base
from atmanrl.commands.parser import brief
from atmanrl.distributed import slices
from atmanrl.errors import UserError
from atmanrl.io.files import atomic_file, atomic_folder, disks_own_errors
from atmanrl.models.adapters import is_adapter
from atmanrl.models.policy import Policy
from atmanrl.models.weights import difference


class ExportError(UserError):
    """A checkpoint cannot be exported; the message names it and says what to do."""


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
    policy = _adapted(path, checkpoint, policy, weights) if KEY in checkpoint else policy.with_weights(weights)
    with atomic_folder(out) as temporary:
        policy.save(temporary, dtype)


def _adapted(path: Path, checkpoint: dict[str, Any], policy: Policy, adapters: dict[str, torch.Tensor]) -> Policy:
    """Return a policy whose base model is loaded as the run did, with a checkpoint's adapters.

    Raises:
        ExportError: the run's config has no adapters, or others.
        CheckpointError: the base model is another one now.
    """
    if policy.lora is None:
        raise ExportError(
            f"{path} holds adapters alone, and the config has no model.init_args.policy.lora: give the run's."
        )
    policy = policy.unbuilt().build()
    check_base(path, checkpoint, policy)
    own = {name: weight for name, weight in policy.model.state_dict().items() if is_adapter(name)}
    if differs := difference(adapters, own):
        raise ExportError(f"{path} holds other adapters than the config's model.init_args.policy.lora ({differs}).")
    policy.model.load_state_dict(adapters, strict=False)
    return policy


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
    """Return the policy that a run's config names, with nothing loaded.

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
        run = "" if config else f", beside which {path} would be RUN/checkpoints/NAME.ckpt"
        raise ExportError(f"there is no {file}{run}; name the run's config.yaml by --config.")
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
    policy = _policy(options | own if isinstance(options, dict) else options, file)
    if merge is not None:
        if policy.lora is None:
            raise ExportError(f"{file} has no model.init_args.policy.lora: leave --merge_lora out.")
        policy.lora = replace(policy.lora, export="merged" if merge else "adapter")
    return policy


def _policy(options: Any, file: Path) -> Policy:
    """Return the policy of options from a file, whose names and types are those of `Policy` itself."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Policy, "policy")
    try:
        policy: Policy = parser.instantiate(parser.parse_object({"policy": options})).policy
    except ArgumentError as error:
        raise ExportError(f"{file}: model.init_args: {brief(str(error))}") from error
    return policy
