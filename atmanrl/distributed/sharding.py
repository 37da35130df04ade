"""A policy's weights as a run's strategy wants them: full, or in slices over the processes.

Under FSDP2 every process holds a slice of each weight. The update keeps them sharded, and so every process runs equally
many forward and backward passes (see `grpo.processes`); sampling and the probe read full ones (see `copies`).
Without FSDP2 everything here is the ordinary thing.
"""

from __future__ import annotations

from weakref import WeakSet

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
from atmanrl.lightning_internals import trainer_of
from atmanrl.models.policy import Policy
from atmanrl.models.precision import check_precision

COMPUTED_IN = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What matrix products are computed in under those of Lightning's precisions that keep the weights wider."""

_BY_LAYER: WeakSet[Policy] = WeakSet()
"""Sharded policies of which no process holds a full copy."""


def build(policy: Policy, module: LightningModule, shard: bool = True) -> Policy:
    """Load a policy as the module's strategy wants it: in full, or sharded. To be called in `configure_model`.

    With a single process there is nothing to share: FSDP2 then is the ordinary thing, too. In mixed precision the policy
    notes what it is computed in. Attention by cuDNN is switched on or off as the policy says.

    Args:
        policy: to be loaded.
        module: whose trainer has the strategy and the precision.
        shard: whether the module can do with slices of the weights; if not, FSDP2 refuses the module.

    Raises:
        UserError: a precision that cannot be, or that FSDP2 cannot have here.
    """
    torch.backends.cuda.enable_cudnn_sdp(policy.cudnn_attention)  # of this process, to the end of the run
    mesh = module.device_mesh
    policy.computed_in = None
    if (trainer := trainer_of(module)) is not None:
        name = check_precision(trainer.precision, policy.dtype_name, policy.lora is None)
        policy.computed_in = COMPUTED_IN.get(name)
    if (
        not shard or policy.model is not None or mesh is None or mesh.size() == 1
    ):  # only strategies that shard have a mesh
        return policy.build()
    if module.trainer.precision not in ("32-true", "bf16-mixed"):
        raise UserError(
            f"FSDP2Strategy cannot train in trainer.precision {module.trainer.precision}: choose bf16-mixed or 32-true; "
            "what dtype the weights are kept in is model.policy.dtype."
        )
    by_layer = getattr(module.trainer.strategy, "gather", "model") == "layer"
    return build_sharded(policy, mesh["data_parallel"], module.trainer.strategy.root_device, by_layer)


def build_sharded(policy: Policy, mesh: DeviceMesh, device: torch.device, by_layer: bool = False) -> Policy:
    """Build a policy on the meta device, shard it layer by layer, and fill in the weights, which rank 0 alone reads.

    Args:
        policy: not yet built. Where it is `computed_in` another dtype, weights are gathered in that one; the slices stay
            in the policy's own (fp32 master weights), and gradients are reduced in float32.
        mesh: of one dimension, over all processes.
        device: of this process.
        by_layer: whether sampling, the probe and scoring gather one layer at a time, and not the model.
    """
    if by_layer:
        _BY_LAYER.add(policy)
    source = policy.unbuilt().build() if processes().rank == 0 else None
    policy.build("meta")
    # autocast, where it is on, has its own opinion on inputs: casting them here would round the probe's mask
    computed_in = policy.computed_in
    precision = MixedPrecisionPolicy(computed_in, torch.float32 if computed_in else None, cast_forward_inputs=False)
    for layer in policy.layers():
        fully_shard(layer, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
    fully_shard(policy.model, mesh=mesh, mp_policy=precision, reshard_after_forward=False)
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


def gathers_by_layer(policy: Policy) -> bool:
    """Say whether full weights of a sharded policy are gathered one layer at a time."""
    return policy in _BY_LAYER


def is_sharded(model: nn.Module) -> bool:
    """Say whether processes hold slices of its weights, so that all of them must run its passes together."""
    return isinstance(model, FSDPModule)


def full_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the full state dict on the CPU of rank 0, an empty one on other processes. All must call it."""
    keep = processes().rank == 0
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if keep:
            state[name] = full.detach().cpu()
    return state


def unsharded(policy: Policy) -> Policy:
    """Return a sharded policy's unsharded copy on the CPU of rank 0; on other ranks, or not sharded, the policy itself.

    All processes must call it.
    """
    model: nn.Module = policy.model
    if not is_sharded(model):
        return policy
    weights = full_weights(model)
    return policy.with_weights(weights) if processes().rank == 0 else policy
