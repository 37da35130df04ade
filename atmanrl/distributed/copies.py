"""A copy of a policy's weights, full and frozen, for what reads them freely: sampling, the probe, scoring.

The copy is a model of the same structure without memory of its own, which is filled with the policy's weights for the time
of a context and emptied afterwards. Two things ask for it:

- Under FSDP2 every process holds a slice of each weight. Sampling and the probe run a different number of forward passes
  on every process, which a layer's all-gather would not survive: they read an *unsharded copy* (`gathered`). Where a device
  has no room for one, its layers are filled one at a time (`by_layer`).
- In mixed precision autocast would cast every float32 weight anew for every sampled token, and keys and values would be
  kept in float32: there the copy has the weights in the dtype of computation (`inference_copy`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from atmanrl.distributed.by_layer import LayerByLayer
from atmanrl.distributed.sharding import gathers_by_layer, is_sharded
from atmanrl.distributed.weights import narrowed, put
from atmanrl.models.layers import layers_of
from atmanrl.models.policy import Policy

_COPIES: WeakKeyDictionary[Policy, Any] = WeakKeyDictionary()
"""Each policy's copy, which is made once, so that what has been learned of it (see `probe.guard`) stays known."""


@contextmanager
def gathered(policy: Policy) -> Iterator[None]:
    """Give the policy full, frozen weights on every process; it is sharded again afterwards.

    Within the context processes need not run in step, may call the model's parts, and may run backward passes within forward
    passes, none of which FSDP2's hooks would bear: `policy.model` is an unsharded copy without hooks. All processes must
    enter it, and leave it: where layers are gathered one at a time, a process that is done waits there and helps the others.
    It may be nested. Without FSDP2 it does nothing.
    """
    if is_sharded(policy.model):
        with _layers_in_place(policy) if gathers_by_layer(policy) else _copy_in_place(policy):
            yield
    else:
        yield


@contextmanager
def inference_copy(policy: Policy) -> Iterator[None]:
    """Give the policy the weights that sampling and the probe read: full, frozen, in the dtype of computation.

    In mixed precision the weights are cast once and autocast is off, so keys and values take half the memory, and nothing
    is cast for every token. Numbers then differ from those of the update, whose sums between layers are float32 (see
    `GRPOModule.rescore`). The copy is emptied afterwards. Where weights are computed with as they are, and where they
    are quantised, the model stays what it is. It may be nested. Under FSDP2 all processes must enter it.
    """
    with gathered(policy):
        if policy.computed_in is None or _is_quantised(policy.model):
            yield
        elif policy.model is _COPIES.get(policy):
            with torch.autocast(policy.device.type, enabled=False):
                yield
        else:
            with _copy_in_place(policy), torch.autocast(policy.device.type, enabled=False):
                yield


@contextmanager
def _copy_in_place(policy: Policy) -> Iterator[None]:
    own: nn.Module = policy.model
    # tensors of inference mode could not be used by a backward pass later
    with torch.inference_mode(False), torch.no_grad():
        policy.model = _filled(_copy_of(policy), own, policy.computed_in)
    try:
        yield
    finally:
        policy.model.to("meta")
        policy.model = own


@contextmanager
def _layers_in_place(policy: Policy) -> Iterator[None]:
    """Give the policy a copy of which only what lies outside of its layers is filled, until a pass needs a layer."""
    own, structure, slices = policy.model, _copy_of(policy), policy.layers()
    within = {id(weight) for layer in slices for weight in layer.parameters()}
    with torch.inference_mode(False), torch.no_grad():
        _filled(structure, own, policy.computed_in, leave_out=within)
    layers = list(layers_of(structure, policy.path))
    reader = LayerByLayer(structure, layers, own, list(slices), policy.computed_in, policy.device)
    policy.model = structure
    try:
        with reader.filled():
            yield
    finally:
        structure.to("meta")
        policy.model = own


def _copy_of(policy: Policy) -> Any:
    if policy not in _COPIES:
        model = policy.model
        # FSDP2's hooks must not be copied, so there the model is built again
        structure = policy.unbuilt().build("meta").model if is_sharded(model) else _structure(model)
        _COPIES[policy] = structure.requires_grad_(False).eval()
    return _COPIES[policy]


def _structure(model: nn.Module) -> nn.Module:
    """Copy the model's modules, with parameters on the meta device and the same buffers."""
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, memo | {id(buffer): buffer for buffer in model.buffers()})


def _filled(
    structure: nn.Module, model: nn.Module, kind: torch.dtype | None, leave_out: Set[int] = frozenset()
) -> nn.Module:
    """Fill a structure with the model's full weights in a dtype (None: their own); weights that are tied stay so.

    A weight that has the dtype already is shared and not copied. Those of the ids `leave_out` stay as they are. Buffers,
    such as rotary tables, are the model's own.
    """
    filled: dict[int, nn.Parameter] = {}
    for name, weight in model.state_dict(keep_vars=True).items():
        if not isinstance(weight, nn.Parameter) or id(weight) in leave_out:
            continue
        if id(weight) not in filled:
            narrow = narrowed(weight.detach(), model, name, kind)
            full = narrow.full_tensor() if isinstance(narrow, DTensor) else narrow
            filled[id(weight)] = nn.Parameter(full, requires_grad=False)
        put(structure, name, filled[id(weight)])
    for name, buffer in model.named_buffers():
        put(structure, name, buffer)
    return structure


def _is_quantised(model: nn.Module) -> bool:
    """Say whether weights are kept in a form of their own, which computes in a dtype of its own choice."""
    return getattr(model, "hf_quantizer", None) is not None or not all(
        w.is_floating_point() for w in model.parameters()
    )
