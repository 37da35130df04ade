"""Checkpoints of adapters: the base model, which stays as it was loaded, is named in them and not stored.

A checkpoint then holds `base`: the model's name, and a digest of its weights by which another model is told apart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from atmanrl.checkpoint.reading import CheckpointError
from atmanrl.models.adapters import is_adapter
from atmanrl.models.policy import Policy

KEY = "base"
"""Under which a checkpoint of adapters names their base model."""

PREFIX = "policy.model."
"""What the names of the policy's weights begin with in a checkpoint."""


def digest_of(policy: object) -> str:
    """Return a digest of some values of each of a policy's weights; empty where a restart would not find them again.

    Weights that were drawn and new adapters are left out, and so are slices of sharded weights.
    """
    if not isinstance(policy, Policy) or policy.model is None or not policy.pretrained:
        return ""
    digest = hashlib.sha256()
    for name, weight in sorted(policy.model.named_parameters()):
        if type(weight.data) is not torch.Tensor:
            return ""
        if not is_adapter(name):
            values = weight.detach().flatten()
            digest.update(torch.cat([values[:32], values[-32:]]).to("cpu", torch.float32).numpy().tobytes())
    return f"{policy.dtype_name}:{digest.hexdigest()}"


def leave_out_base(checkpoint: dict[str, Any], module: nn.Module, digest: str) -> None:
    """Leave the weights of the base model out of a checkpoint of adapters, and name the model instead.

    Where a restart would not find the weights again, which were drawn or are sharded, all of them stay.

    Args:
        checkpoint: about to be written.
        module: the LightningModule.
        digest: of the weights that the run began with; empty where a restart would not find them.
    """
    policy = getattr(module, "policy", None)
    if not isinstance(policy, Policy) or policy.lora is None or not digest:
        return
    state = checkpoint["state_dict"]
    checkpoint["state_dict"] = {n: w for n, w in state.items() if not n.startswith(PREFIX) or is_adapter(n)}
    checkpoint[KEY] = {"path": base_path(policy), "digest": digest}


def put_back_base(path: object, checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Complete a checkpoint of adapters by the weights of the module's own base model.

    Args:
        path: of the checkpoint, for messages.
        checkpoint: as it was read.
        module: the LightningModule that is to go on from it.

    Raises:
        CheckpointError: the module's base model is another one.
    """
    policy = getattr(module, "policy", None)
    if KEY not in checkpoint or not isinstance(policy, Policy) or policy.lora is None:
        return
    check_base(path, checkpoint, policy)
    own = module.state_dict()
    base = {n: w for n, w in own.items() if n.startswith(PREFIX) and not is_adapter(n)}
    checkpoint["state_dict"] = {**base, **checkpoint["state_dict"]}


def check_base(path: object, checkpoint: dict[str, Any], policy: Policy) -> None:
    """Compare the base model that a checkpoint of adapters names with a policy's; sharded weights are not compared.

    Raises:
        CheckpointError: it is another one.
    """
    base = checkpoint[KEY]
    if not isinstance(base, dict) or not all(isinstance(base.get(name), str) for name in ("path", "digest")):
        raise CheckpointError(f"{path} is no checkpoint of a run: its {KEY} names no model.")
    digest = digest_of(policy)
    if digest and digest != base["digest"]:
        raise CheckpointError(
            f"{path} holds adapters alone, of the model {base['path']!r}, whose weights or dtype are others than "
            f"those of {base_path(policy)!r} here: name the model that the run began with (--model.policy.path, and "
            "--model.policy.dtype)."
        )


def base_path(policy: Policy) -> str:
    """Return the name of a policy's base model, which is another's if the policy itself names an adapter."""
    return policy.path if policy.adapter is None else policy.adapter.base
