"""A sharded policy's weights, gathered one layer at a time: for models of which a device cannot hold a full copy.

What reads the weights freely runs a different number of passes on every process, in an order of its own, and gathering is
a work of all. So a process that needs a layer says so, and all processes say in the same turn what they need; then each
layer that somebody needs is gathered by all of them. A process that needs nothing more serves the others until none does.
Passes need not be alike, nor equally many; where processes are in step, as they begin, each layer is gathered once for all.

A layer's weights are there for its forward pass, and again for its backward pass: autograd keeps, in place of a weight, a
note of which one it was. Embeddings, the last norm and the head are there all the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor

from atmanrl.distributed.collectives import processes, serving
from atmanrl.distributed.weights import narrowed, put

NOTHING = -1
"""What a process asks for that needs no layer."""


def gather_together(slices: Mapping[str, DTensor]) -> dict[str, Tensor]:
    """Return full tensors of slices of one dtype, by a single collective. All processes must call it.

    FSDP2 slices along the first dimension: of n rows each of P processes has ceil(n / P) at most, the last ones fewer.
    """
    count = processes().count
    rows = {name: -(-len(tensor) // count) for name, tensor in slices.items()}
    sizes = {name: rows[name] * math.prod(tensor.shape[1:]) for name, tensor in slices.items()}
    own = next(iter(slices.values())).to_local().new_zeros(sum(sizes.values()))
    start = 0
    for name, tensor in slices.items():
        local = tensor.to_local()
        own[start : start + local.numel()] = local.flatten()
        start += sizes[name]
    gathered = own.new_empty(count * len(own))
    dist.all_gather(list(gathered.chunk(count)), own)
    full, start = {}, 0
    for name, tensor in slices.items():
        parts = gathered.view(count, -1)[:, start : start + sizes[name]]
        full[name] = parts.reshape(-1, *tensor.shape[1:])[: len(tensor)].contiguous()
        start += sizes[name]
    return full


class LayerByLayer:
    """A model's structure whose layers are filled with weights when a pass comes to them.

    Args:
        structure: without hooks of FSDP2; its layers have weights on the meta device.
        layers: of the structure.
        model: sharded, whose weights are gathered.
        slices: the same layers of the sharded model.
        kind: the dtype of the gathered weights; None takes that of the slices.
        device: of this process.

    Attributes:
        gathered: number of layers that were gathered.
    """

    def __init__(
        self, structure: nn.Module, layers: Sequence[nn.Module], model: nn.Module, slices: Sequence[nn.Module],
        kind: torch.dtype | None, device: torch.device,
    ) -> None:  # fmt: skip
        self.structure, self.layers, self.model, self.slices = structure, layers, model, slices
        self.kind, self.device = kind, device
        self.gathered = 0
        self._here: tuple[int, dict[str, Tensor]] | None = None  # the last layer that this process has asked for
        self._noted: dict[int, tuple[int, str]] = {}  # of weights in use, by the address of their storage

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Let passes run over the structure within. All processes must enter and leave together."""
        handles = [hook for k, layer in enumerate(self.layers) for hook in self._hooks(k, layer)]
        try:
            with serving(self.serve):
                yield
                self.serve()
        finally:
            for handle in handles:
                handle.remove()
            self._here = None

    def serve(self) -> None:
        """Gather what other processes need, until none of them needs a layer any more."""
        while self._turn(NOTHING):
            pass

    def weights(self, number: int) -> dict[str, Tensor]:
        """Return the full weights of a layer, by name. The layer before is given up."""
        if self._here is None or self._here[0] != number:
            self._here = None
            self._turn(number)
        assert self._here is not None
        return self._here[1]

    def _turn(self, wanted: int) -> bool:
        """Gather each layer that some process wants; return whether there was one."""
        own = torch.tensor([wanted], device=self.device)
        wishes = [torch.empty_like(own) for _ in range(processes().count)]
        dist.all_gather(wishes, own)
        numbers = sorted({int(wish) for wish in wishes} - {NOTHING})
        for number in numbers:
            weights = self._gather(number)
            if number == wanted:
                self._here = number, weights
        return bool(numbers)

    @torch.no_grad()
    def _gather(self, number: int) -> dict[str, Tensor]:
        """Gather a layer's weights, those of one dtype in one piece; all processes must."""
        self.gathered += 1
        weights: dict[str, Tensor] = {}
        with torch.inference_mode(False):  # tensors of inference mode could be used by no backward pass
            pieces: dict[torch.dtype, dict[str, DTensor]] = {}
            for name, weight in self.slices[number].named_parameters():
                narrow = narrowed(weight.detach(), self.model, name, self.kind)
                if isinstance(narrow, DTensor):
                    pieces.setdefault(narrow.dtype, {})[name] = narrow
                else:
                    weights[name] = narrow
            for piece in pieces.values():
                weights |= gather_together(piece)
        return weights

    def _hooks(self, number: int, layer: nn.Module) -> list[Any]:
        empty = {name: weight.detach() for name, weight in layer.named_parameters()}
        open_contexts: list[AbstractContextManager[None]] = []

        def fill(_: nn.Module, args: Any) -> None:
            weights = self.weights(number)
            for name, weight in weights.items():
                put(layer, name, nn.Parameter(weight, requires_grad=False))
                self._noted[weight.untyped_storage().data_ptr()] = number, name
            context = saved_tensors_hooks(self._note, self._look_up)
            context.__enter__()
            open_contexts.append(context)

        def empty_again(_: nn.Module, args: Any, output: Any) -> None:
            if open_contexts:  # the pass may have failed before it came here
                open_contexts.pop().__exit__(None, None, None)
            for name, weight in empty.items():
                put(layer, name, nn.Parameter(weight, requires_grad=False))
            self._noted.clear()

        return [
            layer.register_forward_pre_hook(fill),
            layer.register_forward_hook(empty_again, always_call=True),
        ]

    def _note(self, tensor: Tensor) -> Any:
        """Note of a weight, or a view of one, which it was; anything else is kept as it is."""
        place = None if tensor.is_meta else self._noted.get(tensor.untyped_storage().data_ptr())
        if place is None:
            return tensor.detach()  # a tensor that is kept by the operation that made it would never be freed
        return *place, tensor.size(), tensor.stride(), tensor.storage_offset()

    def _look_up(self, kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        number, name, size, stride, offset = kept
        return self.weights(number)[name].as_strided(size, stride, offset)
