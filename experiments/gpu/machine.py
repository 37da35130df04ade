"""Step `machine`: versions, the device, which attention kernels PyTorch prefers, and what the device can do at best."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import torch
from torch.nn.attention import SDPBackend

from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, seconds_of

PACKAGES = ("torch", "triton", "transformers", "lightning", "safetensors", "peft", "trl", "datasets", "spacy", "pytest")


def measure(args: argparse.Namespace, record: Record) -> None:
    """Look around, and time one large matrix product and one large copy."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    record.put("versions", {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}})
    with record.guarded("device") as found:
        found["name"] = platform.machine()
        if scene.cuda:
            about = torch.cuda.get_device_properties(scene.device)
            found |= {
                "name": about.name, "memory_gib": round(about.total_memory / 2**30, 1), "devices": torch.cuda.device_count(),
                "capability": list(torch.cuda.get_device_capability(scene.device)), "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "free_gib": round(torch.cuda.mem_get_info(scene.device)[0] / 2**30, 1),
            }  # fmt: skip
    with record.guarded("sdpa") as found:
        names = {int(backend.value): name for name, backend in SDPBackend.__members__.items()}
        found["priority"] = [names.get(number, str(number)) for number in torch._C._get_sdp_priority_order()]
        enabled = torch.backends.cuda
        found["enabled"] = {
            "flash": enabled.flash_sdp_enabled(), "efficient": enabled.mem_efficient_sdp_enabled(),
            "cudnn": enabled.cudnn_sdp_enabled(), "math": enabled.math_sdp_enabled(),
        }  # fmt: skip
    with record.guarded("reachable") as found:
        size, length = (128, 2**16) if args.tiny else (8192, 2**30)
        a = torch.randn(size, size, device=scene.device, dtype=torch.bfloat16)
        b = torch.empty(length, device=scene.device, dtype=torch.bfloat16)
        product = min(seconds_of(lambda: a @ a, scene, 10)[1:])
        copied = min(seconds_of(lambda: b.clone(), scene, 10)[1:])
        found["matrix_tflops"] = 2 * size**3 / product / 1e12
        found["copy_terabytes_per_second"] = 2 * b.nbytes / copied / 1e12


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
