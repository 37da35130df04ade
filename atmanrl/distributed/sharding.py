"""A policy's weights in pieces, and whole where it must run freely.

Under FSDP2 every process holds a slice of each weight. Sampling and the probe run a different number of forward passes on
every process, which a layer's all-gather would not survive: there the weights are gathered once (`gathered`). The update
keeps them sharded, and so every process runs equally many forward and backward passes (see `grpo.processes`).
Without FSDP2 everything here is the ordinary thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from atmanrl.distributed.collectives import processes
from atmanrl.errors import UserError
from atmanrl.policy import Policy


def build(policy: Policy, module: LightningModule) -> Policy:
    """Load a policy as the module's strategy wants it: whole, or sharded. To be called in `configure_model`.

    With a single process there is nothing to share: FSDP2 then is the ordinary thing, too.

    Raises:
        UserError: a precision that FSDP2 cannot have here.
    """
    mesh = module.device_mesh
    if policy.model is not None or mesh is None or mesh.size() == 1:  # only strategies that shard have a mesh
        return policy.build()
    if module.trainer.precision not in ("32-true", "bf16-mixed"):
        raise UserError(
            f"FSDP2Strategy cannot train in trainer.precision {module.trainer.precision}: choose bf16-mixed or 32-true; "
            "what dtype the weights are kept in is model.policy.dtype."
        )
    half = torch.bfloat16 if module.trainer.precision == "bf16-mixed" else None
    return build_sharded(policy, mesh["data_parallel"], module.trainer.strategy.root_device, half)


def build_sharded(
    policy: Policy, mesh: DeviceMesh, device: torch.device, computed_in: torch.dtype | None = None
) -> Policy:
    """Build a policy on the meta device, shard it layer by layer, and fill in the weights, which rank 0 alone reads.

    Args:
        policy: not yet built.
        mesh: of one dimension, over all processes.
        device: of this process.
        computed_in: dtype in which weights are gathered; the slices stay in the policy's own (fp32 master weights), and
            gradients are reduced in float32. None gathers them as they are.
    """
    source = policy.unbuilt().build() if processes().rank == 0 else None
    policy.build("meta")
    # autocast, where it is on, has its own opinion on inputs: casting them here would round the probe's mask
    precision = MixedPrecisionPolicy(computed_in, torch.float32 if computed_in else None, cast_forward_inputs=False)
    for layer in policy.layers():
        fully_shard(layer, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
    fully_shard(policy.model, mesh=mesh, mp_policy=precision, reshard_after_forward=False)
    policy.model.computed_in = computed_in
    policy.model.to_empty(device=device)
    policy.model.tie_weights()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(policy.model, source.model.state_dict() if source else {}, options=options)
    # buffers outside of the state dict, such as rotary tables, exist on rank 0 alone
    buffers = dict(source.model.named_buffers()) if source else {}
    for name, buffer in policy.model.named_buffers():
        if buffers:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)
    return policy


def is_sharded(model: nn.Module) -> bool:
    """Whether processes hold slices of its weights, so that all of them must run its passes together."""
    return isinstance(model, FSDPModule)


@contextmanager
def gathered(policy: Policy) -> Iterator[None]:
    """The policy with whole, frozen weights on every process; sharded again afterwards.

    Within it processes need not run in step, may call the model's parts, and may run backward passes within forward
    passes, none of which FSDP2's hooks would bear: `policy.model` is a twin without hooks. Entering is collective. It may
    be nested. Without FSDP2 it does nothing.
    """
    sharded: nn.Module = policy.model
    if not is_sharded(sharded):
        yield
        return
    # tensors made in inference mode could not be used by a backward pass later
    with torch.inference_mode(False), torch.no_grad():
        policy.model = _filled(_twin(policy), sharded)
    try:
        yield
    finally:
        policy.model.to("meta")
        policy.model = sharded


_TWINS: WeakKeyDictionary[Policy, Any] = WeakKeyDictionary()


def _twin(policy: Policy) -> Any:
    """The model once more, without memory, made once: what is known of it (see `probe.guard`) stays known."""
    if policy not in _TWINS:
        _TWINS[policy] = policy.unbuilt().build("meta").model.requires_grad_(False).eval()
    return _TWINS[policy]


def _filled(twin: Any, sharded: nn.Module) -> Any:
    """The twin with the whole of the sharded weights, in the dtype in which they are computed."""
    kind: torch.dtype | None = getattr(sharded, "computed_in", None)
    whole = {
        name: cast(DTensor, value.to(kind or value.dtype)).full_tensor() if isinstance(value, DTensor) else value
        for name, value in sharded.state_dict().items()
    }
    twin.load_state_dict(whole, assign=True)
    for name, buffer in sharded.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(twin.get_submodule(owner), leaf, buffer)
    twin.tie_weights()
    return twin.requires_grad_(False)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole state dict on the CPU of rank 0, empty on other processes. All must call it."""
    keep = processes().rank == 0
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            state[name] = whole.detach().cpu()
    return state


def whole(policy: Policy) -> Policy:
    """A sharded policy's twin on the CPU of rank 0, with whole weights; elsewhere, or not sharded, the policy itself.

    All processes must call it.
    """
    model: nn.Module = policy.model
    if not is_sharded(model):
        return policy
    weights = full_weights(model)
    return policy.with_weights(weights) if processes().rank == 0 else policy
