"""Compiling what a transformer layer does to each position alone: its norms and its feed-forward network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import MethodType

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Tensor], Tensor]
_COMPILED: dict[tuple[Forward, str], Forward] = {}
"""Compiled functions by a class's `forward` and the backend: all layers share what was compiled for one."""


def compile_layers(layers: Iterable[nn.Module], backend: str = "inductor") -> int:
    """Compile the norms and dense feed-forward networks of layers, in place.

    They are a chain of elementwise kernels that move as many bytes as the matrix products between them cost time; a
    compiler makes one kernel of each chain. Attention stays as it is: its mask, its function and its cache change from
    pass to pass (the probe, shared prompts, sampling), which would be compiled anew for every layer. Hooks on a part and on
    the layer, activation checkpointing and FSDP2 act outside of what is compiled.

    Positions are handed over in one row, so that batch and length together are one size, which is a symbol. (A batch or a
    length of one is compiled once more: the compiler looks at what the row is a view of.)

    Args:
        layers: transformer layers of any architecture; parts of other kinds, such as experts, are left as they are.
        backend: of `torch.compile`.

    Returns:
        How many parts are compiled.
    """
    # the probe's guard asks the gradient of one pass several times, which buffers that are used up in the first do not allow
    torch._functorch.config.donated_buffer = False
    parts = [part for layer in layers for part in layer.children() if _is_positionwise(part)]
    for part in parts:
        key = (type(part).forward, backend)
        if key not in _COMPILED:
            _COMPILED[key] = torch.compile(type(part).forward, backend=backend, dynamic=True)
        # bound as a method, so that a copy of the model compiles its own parts
        part.forward = MethodType(_in_one_row(_COMPILED[key]), part)
    return len(parts)


def _in_one_row(compiled: Forward) -> Forward:
    def forward(part: nn.Module, states: Tensor) -> Tensor:
        return compiled(part, states.flatten(0, -2)[None]).view(states.shape)

    return forward


def _is_positionwise(part: nn.Module) -> bool:
    """Whether a part maps hidden states, each position alone, by vectors and matrices (not convolutions, experts)."""
    if "forward" in vars(part) or not any(True for _ in part.parameters()):
        return False
    takes = [p for p in inspect.signature(part.forward).parameters.values() if p.kind is not p.VAR_KEYWORD]
    lists = any(isinstance(module, nn.ModuleList) for module in part.modules())
    return len(takes) == 1 and not lists and all(weight.ndim <= 2 for weight in part.parameters())
