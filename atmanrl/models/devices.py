"""Where a model runs and in which dtype, where `auto` is to decide, and what PyTorch's attention may use on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Literal, get_args

import torch

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.shipped import located

WeightsDtype = Literal["float32", "bfloat16", "float16", "float64"]
DtypeName = Literal["auto", WeightsDtype]


def check_device(name: str) -> None:
    """Check that a name is that of a device, whether or not it is here.

    Raises:
        UserError: it is none of `auto`, `cpu`, `cuda`, `cuda:1` and `mps`.
    """
    kind, colon, number = name.partition(":")
    if name != "auto" and (kind not in ("cpu", "cuda", "mps") or bool(colon) != number.isdecimal()):
        raise UserError(f"device {name!r} is unknown; choose auto, cpu, cuda, cuda:1 (a GPU by its number) or mps.")


def choose_device(name: str) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`, a CUDA GPU where there is one.

    `auto` never takes Apple's `mps`: the probe has not been tried on it, so it must be asked for.

    Raises:
        UserError: no such device, or none of its kind is here.
    """
    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(device.type):
        raise UserError(f"device {name!r} is not there: PyTorch sees {_seen()}.")
    return device


def choose_dtype(name: str, device: torch.device, policy: Policy) -> WeightsDtype:
    """Return the dtype of a policy's weights on a device.

    `auto` takes float32. Only on a CUDA GPU that computes in bfloat16 does it take bfloat16, and only for weights that
    are stored so: of those nothing is lost, while the masks are float32 in any case.

    Args:
        name: `auto`, or a dtype.
        device: where the policy is to run.
        policy: not yet built.

    Raises:
        UserError: an unknown dtype, or one that the device does not have.
    """
    known: tuple[WeightsDtype, ...] = get_args(WeightsDtype)
    if name in known:
        if name == "float64" and device.type == "mps":
            raise UserError("dtype 'float64' does not exist on mps; choose float32.")
        return known[known.index(name)]
    if name != "auto":
        raise UserError(f"dtype {name!r} is unknown; choose one of auto, {', '.join(known)}.")
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast and _stored_dtype(policy) == "bfloat16" else "float32"


def current(device: torch.device) -> AbstractContextManager[Any]:
    """Make a GPU the current one: there Triton starts its kernels, wherever their tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def cudnn_attention(allowed: bool) -> Iterator[None]:
    """Let `scaled_dot_product_attention` use cuDNN or not, until the block ends; `Policy` says why it had better not."""
    before = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def _stored_dtype(policy: Policy) -> str | None:
    """The dtype that a model's configuration names; None where there is none to read, which `Policy.build` will say."""
    from transformers import AutoConfig

    config = None
    with suppress(OSError, ValueError):
        config = AutoConfig.from_pretrained(
            located(policy.path), revision=policy.revision, trust_remote_code=policy.trust_remote_code
        )
    kind = getattr(config, "dtype", None)
    return None if kind is None else str(kind).removeprefix("torch.")


def _seen() -> str:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"the CPU and {gpus} CUDA GPU{'s' * (gpus != 1)}{' and mps' * torch.backends.mps.is_available()}"
