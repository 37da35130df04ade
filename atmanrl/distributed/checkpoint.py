"""Checkpoints of sharded models: one file that any strategy reads, or a folder with each process's slices.

Both hold the same: the model's weights by name, and each optimizer's own state dict. Nothing that is loaded can run code:
tensors are read by `torch.load(weights_only=True)`, and a folder's index by an unpickler that knows its few classes.
"""

from __future__ import annotations

import pickle
import shutil
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

from atmanrl.distributed.collectives import processes
from atmanrl.errors import UserError, first_line
from atmanrl.io.files import disks_own_errors
from atmanrl.models.weights import UNSAFE, check_same

REST = "meta.pt"
"""The file of a sharded checkpoint that holds everything but the tensors of model and optimizers (Lightning's name)."""
INDEX = ".metadata"
"""The file that says where each slice lies (PyTorch's name)."""


class CheckpointError(UserError):
    """A checkpoint cannot be written, read, or loaded into this model; the message says what to do."""


def is_sharded(path: Path) -> bool:
    """Whether it is a folder of slices."""
    return path.is_dir() and (path / INDEX).is_file()


def unreadable(path: object, error: Exception) -> CheckpointError:
    """The error of a file that `torch.load` refuses or cannot read."""
    reason = UNSAFE if isinstance(error, pickle.UnpicklingError) else first_line(error)
    return CheckpointError(f"the checkpoint {path} cannot be read: {reason}")


def clear(path: Path) -> None:
    """Remove an older checkpoint of that name."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def whole_optimizer_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state dict with whole tensors on the CPU of rank 0, without its state elsewhere. Collective."""
    keep = processes().rank == 0
    whole: dict[int, dict[str, Any]] = {}
    for number, values in state["state"].items():
        gathered = {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in values.items()}
        if keep:
            whole[number] = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in gathered.items()}
    return {"state": whole, "param_groups": state["param_groups"]}


def save_sharded(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a folder of slices. Collective.

    Raises:
        OSError: a disk is full, or cannot be written to; every process is told of one among the slices.
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


def load(path: Path, model: nn.Module, optimizers: Iterable[Optimizer], safe: bool) -> dict[str, Any]:
    """Fill a sharded model and its optimizers; returns what else the checkpoint holds. Collective.

    Each process reads its own slices alone.

    Raises:
        CheckpointError: there is none, or it is broken.
        PolicyError: it is another model's.
    """
    own, optimizers = model.state_dict(), list(optimizers)
    learning = [[p.detach() for group in o.param_groups for p in group["params"]] for o in optimizers]
    if path.is_file():
        checkpoint = read_full(path, safe)
        _check_kind(path, checkpoint, model)
        check_same(checkpoint["state_dict"], own, _name(model))
        for name, value in own.items():
            value.copy_(_slice(checkpoint["state_dict"][name], value))
    else:
        checkpoint = read_sharded(path, model, learning)  # straight into the model
    del checkpoint["state_dict"]
    for optimizer, parameters, saved in zip(optimizers, learning, checkpoint.get("optimizer_states", []), strict=False):
        state = {
            number: {k: _slice(v, parameters[number]) for k, v in values.items()}
            for number, values in saved["state"].items()
        }
        optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
    return checkpoint


def read_full(path: Path, safe: bool = True) -> dict[str, Any]:
    """A checkpoint of one file; its tensors stay on disk until they are used.

    Raises:
        CheckpointError: it is broken, would run code, or is something else.
    """
    try:
        found = torch.load(path, map_location="cpu", mmap=True, weights_only=safe)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(found).__name__}.")
    return found


def read_sharded(
    path: Path, model: nn.Module | None = None, learning: Sequence[Sequence[Tensor]] | None = None
) -> dict[str, Any]:
    """A checkpoint of slices, in the form of a checkpoint of one file.

    Args:
        path: the folder.
        model: to be filled; None reads whole tensors to the CPU.
        learning: each optimizer's parameters, which its state is sharded as; the states of no more optimizers are read.
            None reads all of them whole.

    Raises:
        CheckpointError: there is none, or it is broken.
        PolicyError: it is another model's.
    """
    if not is_sharded(path) or not (path / REST).is_file():
        raise CheckpointError(f"{path} is no checkpoint: neither a file nor a folder with {INDEX} and {REST}.")
    reader = Reader(path)
    index = {
        n: w for n, w in reader.read_metadata().state_dict_metadata.items() if isinstance(w, TensorStorageMetadata)
    }
    empty = {name: torch.empty(what.size, dtype=what.properties.dtype, device="meta") for name, what in index.items()}
    weights = {name.removeprefix("state_dict."): v for name, v in empty.items() if name.startswith("state_dict.")}
    rest = read_full(path / REST)
    if "param_groups" not in rest:
        raise CheckpointError(f"{path} is no checkpoint of a run: its {REST} holds no param_groups.")
    if model is None:
        weights = {name: torch.empty_like(v, device="cpu") for name, v in weights.items()}
    else:
        _check_kind(path, rest, model)
        check_same(weights, own := model.state_dict(), _name(model))
        weights = {name: own[name] for name in weights}
    states: list[dict[str, Any]] = [{"state": {}, "param_groups": groups} for groups in rest.pop("param_groups")]
    tensors: dict[str, Any] = {f"state_dict.{name}": value for name, value in weights.items()}
    for name, value in empty.items():
        if name.startswith("optimizer."):
            _, i, number, key = name.split(".", 3)
            if learning is None or int(i) < len(learning):
                parameter = None if learning is None else learning[int(i)][int(number)]
                if parameter is not None and value.shape == parameter.shape:
                    tensors[name] = torch.empty_like(parameter)
                else:
                    tensors[name] = torch.empty_like(value, device="cpu")
                states[int(i)]["state"].setdefault(int(number), {})[key] = tensors[name]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*the intent is to load in a single process.*")  # it is
            load_slices(tensors, storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {first_line(_first(error))}") from error
    return {**rest, "state_dict": weights, "optimizer_states": states}


class Index(pickle.Unpickler):
    """Reads the index of a folder of slices and refuses everything else that a pickle could name."""

    MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
    OTHERS = frozenset({("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")})

    def find_class(self, module: str, name: str) -> Any:
        """The class, if it is one that an index holds."""
        if module in ("pathlib", "pathlib._local") and name in ("PosixPath", "WindowsPath"):
            return PurePath  # where the folder was written; of no use here
        found = super().find_class(module, name) if module.split(".")[0] in ("torch", "collections") else None
        known = module in self.MODULES and isinstance(found, type) and found.__module__ == module
        if known or (module, name) in self.OTHERS or isinstance(found, torch.dtype):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in the index of a checkpoint.")


class Writer(FileSystemWriter):
    """PyTorch's, which tells what the disk has to say."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """This process's slices.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        with disks_own_errors():
            return super().write_data(plan, planner)


class Reader(FileSystemReader):
    """PyTorch's, with an index that cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index.

        Raises:
            CheckpointError: it is broken, or holds what it should not.
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


def _slice(value: Any, like: Tensor) -> Any:
    """This process's slice of a whole tensor, where `like` is sharded and of the same shape."""
    if not isinstance(value, Tensor) or isinstance(value, DTensor) or not isinstance(like, DTensor):
        return value
    if value.shape != like.shape:
        return value
    # every process has the whole on disk: it takes its slice, and nothing is sent
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _first(error: CheckpointException) -> BaseException:
    """The error behind one of PyTorch's, which holds those of all processes."""
    return error.failures[min(error.failures)][0]


def _check_kind(path: Path, checkpoint: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse what is no checkpoint of a run, and that of another LightningModule."""
    of = checkpoint.get("module")
    if of not in (None, type(model).__name__):
        raise CheckpointError(f"{path} is a checkpoint of {of}, this run trains {type(model).__name__}.")
    if path.is_file() and "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is no checkpoint of a run: it holds no state_dict.")


def _name(model: nn.Module) -> str:
    return str(getattr(getattr(model, "policy", None), "path", type(model).__name__))
