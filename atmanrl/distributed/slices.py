"""Sharded checkpoints: a folder into which each process writes its own slices, and the way from any checkpoint to slices.

    update_00020.ckpt/
      .metadata       PyTorch's index: name, shape and dtype of each tensor, and which of its slices lies where in which file
      __0_0.distcp    the slices of process 0, and one such file for each other process
      meta.pt         all that is no tensor of model or optimizer: loops, callbacks, the optimizers' `param_groups`
      manifest.json   the size of each of these files (see `atmanrl.checkpoint.files`)

A weight is called `state_dict.NAME`, an optimizer's tensor `optimizer.NUMBER.PARAMETER.KEY`. A checkpoint of one file and
a folder of slices hold the same, and nothing of either can run code: tensors are read by `torch.load(weights_only=True)`,
and the index, which is a pickle, by an unpickler that knows its few classes.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load as load_slices
from torch.distributed.checkpoint.state_dict_saver import save as save_slices
from torch.distributed.checkpoint.storage import WriteResult
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.futures import Future
from torch.optim import Optimizer

from atmanrl.checkpoint.base_model import put_back_base
from atmanrl.checkpoint.reading import CheckpointError, check_fits, read_file
from atmanrl.distributed.collectives import processes
from atmanrl.errors import first_line
from atmanrl.io.files import disks_own_errors

REST = "meta.pt"
"""The file of a sharded checkpoint that holds everything but the tensors of model and optimizers (Lightning's name)."""
INDEX = ".metadata"
"""The file that says where each slice lies (PyTorch's name)."""


def save(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a folder of slices. All processes must call it.

    Args:
        checkpoint: whose `state_dict` and `optimizer_states` hold slices (`DTensor`).
        path: the folder.

    Raises:
        OSError: a disk is full, or cannot be written to; if that happens to the slices of one process, all raise it.
    """
    rest = dict(checkpoint)
    states = rest.pop("optimizer_states", [])
    tensors: dict[str, Any] = {f"state_dict.{name}": value for name, value in rest.pop("state_dict").items()}
    for i, state in enumerate(states):
        tensors |= {f"optimizer.{i}.{p}.{k}": v for p, values in state["state"].items() for k, v in values.items()}
    rest["param_groups"] = [state["param_groups"] for state in states]
    try:
        save_slices(tensors, storage_writer=Writer(path))
    except CheckpointException as error:  # which is no Exception
        raise _first(error) from error
    if processes().rank == 0:
        with (path / REST).open("wb") as file, disks_own_errors():
            torch.save(rest, file)


def read(path: Path, optimizers: bool = True) -> dict[str, Any]:
    """Read a checkpoint, one file or a folder of slices, with full tensors on the CPU.

    Args:
        path: of the file or folder.
        optimizers: whether the optimizers' states are read from a folder, too.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return read_file(path, mapped=True) if path.is_file() else _read_folder(path, None, None if optimizers else ())


def load(path: Path, module: nn.Module, optimizers: Iterable[Optimizer]) -> dict[str, Any]:
    """Fill a sharded module and its optimizers from a checkpoint, one file or a folder; return what else it holds.

    Each process reads its own slices alone, whatever the number of processes that wrote them.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or it is another model's.
    """
    optimizers = list(optimizers)
    parameters = [[p.detach() for group in o.param_groups for p in group["params"]] for o in optimizers]
    if path.is_file():
        checkpoint = read_file(path, mapped=True)
        held = checkpoint.get("state_dict", {}).keys()
        put_back_base(path, checkpoint, module)
        check_fits(path, checkpoint, module)
        for name, value in module.state_dict().items():
            if name in held:  # a base model that was put back is the module's own
                value.copy_(_slice(checkpoint["state_dict"][name], value))
    else:
        checkpoint = _read_folder(path, module, parameters)
    del checkpoint["state_dict"]
    for optimizer, own, saved in zip(optimizers, parameters, checkpoint.get("optimizer_states", []), strict=False):
        state = {n: {k: _slice(v, own[n]) for k, v in values.items()} for n, values in saved["state"].items()}
        optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    return checkpoint


def unsharded_optimizer_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state dict with full tensors on the CPU of rank 0, and without any on other processes.

    All processes must call it.
    """
    keep = processes().rank == 0
    full: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        unsharded = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in values.items()}
        if keep:
            full[number] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in unsharded.items()}
    return {"state": full, "param_groups": state["param_groups"]}


def _read_folder(path: Path, module: nn.Module | None, parameters: Sequence[Sequence[Tensor]] | None) -> dict[str, Any]:
    """Read a folder of slices in the form of a checkpoint of one file.

    Args:
        path: the folder.
        module: whose weights are overwritten; None reads full weights to the CPU.
        parameters: those of each optimizer, like which its state is sharded; the states of no more optimizers are read.
            None reads all states, with full tensors.
    """
    if not (path / INDEX).is_file() or not (path / REST).is_file():
        raise CheckpointError(f"{path} is no checkpoint: neither a file nor a folder with {INDEX} and {REST}.")
    rest = read_file(path / REST)
    if "param_groups" not in rest:
        raise CheckpointError(f"{path} is no checkpoint of a run: its {REST} holds no param_groups.")
    reader = Reader(path)
    # The index alone says names, shapes and dtypes. So a checkpoint can be compared with the module, as tensors without
    # memory, before a single weight is overwritten.
    outline = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    weights = {n.removeprefix("state_dict."): v for n, v in outline.items() if n.startswith("state_dict.")}
    if module is None:
        weights = {name: torch.empty_like(value, device="cpu") for name, value in weights.items()}
    else:
        check_fits(path, {**rest, "state_dict": weights}, module)
        own = module.state_dict()
        weights = {name: own[name] for name in weights}
    # PyTorch does not return tensors but fills those that it is given, and reads of each what this process holds: of a
    # DTensor its own slice, put together from the slices of however many processes that have written it.
    targets: dict[str, Any] = {f"state_dict.{name}": value for name, value in weights.items()}
    states: list[dict[str, Any]] = [{"state": {}, "param_groups": groups} for groups in rest.pop("param_groups")]
    for name, value in outline.items():
        if name.startswith("optimizer."):
            _, i, number, key = name.split(".", 3)
            if parameters is None or int(i) < len(parameters):
                targets[name] = _target(value, None if parameters is None else parameters[int(i)][int(number)])
                states[int(i)]["state"].setdefault(int(number), {})[key] = targets[name]
    try:
        with warnings.catch_warnings():
            # `no_dist` plans each process's reading by itself: a collective plan would have to be the same on all of
            # them, and one process that reads a folder of many is an ordinary case
            warnings.filterwarnings("ignore", ".*the intent is to load in a single process.*")
            load_slices(targets, storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {first_line(_first(error))}") from error
    return {**rest, "state_dict": weights, "optimizer_states": states}


def _target(value: Tensor, parameter: Tensor | None) -> Tensor:
    """Return memory for an optimizer's tensor: sharded like its parameter if it is one value for each weight.

    Moments are; a count of steps, or the factored moments of Adafactor, are not, and every process holds all of them.
    """
    if parameter is not None and value.shape == parameter.shape:
        return torch.empty_like(parameter)
    return torch.empty_like(value, device="cpu")


def _slice(value: Any, like: Tensor) -> Any:
    """Return this process's slice of a full tensor, where `like` is sharded and of the same shape."""
    if not isinstance(value, Tensor) or isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value
    if value.shape != like.shape:
        return value
    # every process has the full tensor on disk: it takes its slice, and nothing is sent
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


class Index(pickle.Unpickler):
    """Unpickles the index of a folder of slices and refuses everything else that a pickle could name."""

    MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
    OTHERS = frozenset({("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")})

    def find_class(self, module: str, name: str) -> Any:
        """Return the class, if it is one that an index holds."""
        if module in ("pathlib", "pathlib._local") and name in ("PosixPath", "WindowsPath"):
            return PurePath  # the folder that it was written to, which may be anywhere by now: nothing here asks for it
        kind = super().find_class(module, name) if module.split(".")[0] in ("torch", "collections") else None
        # a module names whatever it has imported, `os` for instance: only its own classes will do
        own = module in self.MODULES and isinstance(kind, type) and kind.__module__ == module
        if own or (module, name) in self.OTHERS or isinstance(kind, torch.dtype):
            return kind
        raise pickle.UnpicklingError(f"{module}.{name} has no place in the index of a checkpoint.")


class Writer(FileSystemWriter):
    """PyTorch's writer of slices, which raises the disk's own errors."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's slices.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        with disks_own_errors():
            return super().write_data(plan, planner)


class Reader(FileSystemReader):
    """PyTorch's reader of slices, with an index that cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read the index.

        Raises:
            CheckpointError: it is damaged, or holds what it should not.
        """
        path = Path(self.path) / INDEX
        try:
            with path.open("rb") as file:
                metadata = cast(Metadata, Index(file).load())
        except (pickle.UnpicklingError, EOFError, OSError, AttributeError) as error:
            raise CheckpointError(f"the checkpoint's index {path} cannot be read: {error}") from error
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _first(error: CheckpointException) -> BaseException:
    """Return the error behind one of PyTorch's, which holds those of all processes."""
    return error.failures[min(error.failures)][0]
