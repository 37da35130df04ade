"""Step `attention`: the attention of one layer of 3B's shape by every backend, side by side: seconds, memory, error.

Two cases. `probe` is a gradient of the mask: a bias with a gradient, rows after a cached prompt. `update` is a causal pass
without one. Errors are those of the output and of each gradient, relative to the same in float64.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import eager_attention_forward

from atmanrl.probe.lean import lean_attention, torch_attention
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, attention_inputs, seconds_of

KERNELS = {
    "sdpa": None, "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION, "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa flash": SDPBackend.FLASH_ATTENTION, "sdpa math": SDPBackend.MATH,
}  # fmt: skip
"""PyTorch's own choice, and each kernel alone."""
PROBE = ("lean", "lean in PyTorch", "eager", "sdpa", "sdpa efficient", "sdpa cudnn", "sdpa math")
UPDATE = ("sdpa", "sdpa flash", "sdpa efficient", "sdpa cudnn", "sdpa math", "eager")


class Layer(nn.Module):
    """As much of an attention layer as an attention function looks at."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal, self.layer_idx = groups, True, 0
        self.eval()


def measure(args: argparse.Namespace, record: Record) -> None:
    """Both cases, each backend guarded."""
    scene = Scene.of(args.device, args.tiny, args.tflops, args.terabytes)
    sequences = scene.rollouts if args.tiny else 16
    keys = scene.prompt + scene.completion
    for case, rows, names in (("probe", scene.completion, PROBE), ("update", keys, UPDATE)):
        for name in names:
            if record.in_time(f"{case}, {name}", 0.5 if args.tiny else 1.5):
                with record.guarded(f"{case}, {name}") as found:
                    try:
                        found |= _one(scene, case, name, sequences, rows, keys)
                    except RuntimeError as error:
                        if KERNELS.get(name) is None:
                            raise
                        found["refused"] = str(error).splitlines()[0]  # a kernel need not know every case


def _one(scene: Scene, case: str, name: str, sequences: int, rows: int, keys: int) -> dict[str, Any]:
    query, key, value = attention_inputs(scene, sequences, rows, keys, torch.bfloat16)
    layer, probing = Layer(query.shape[1] // key.shape[1]), case == "probe"
    bias = None
    if probing or name in ("lean", "eager"):
        seen = torch.ones(rows, keys, dtype=torch.bool, device=scene.device).tril(keys - rows)
        bias = torch.zeros(sequences, 1, rows, keys, device=scene.device).masked_fill(
            ~seen, torch.finfo(torch.bfloat16).min
        )
        bias[..., keys - rows :] -= 4 * seen[:, keys - rows :]
    run = _runner(layer, name)

    def gradients(inputs: list[Tensor], mask: Tensor | None, attend: Callable[..., Tensor]) -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        mask = mask.detach().requires_grad_() if mask is not None and probing else mask
        out = attend(*leaves, mask)
        wanted = [leaves[0], mask] if probing else leaves
        return [out, *torch.autograd.grad(out.float().square().sum() / 2, wanted)]

    inputs = [query, key, value]
    scene.fresh_peak()
    held = torch.cuda.memory_allocated(scene.device) if scene.cuda else 0
    ours = gradients(inputs, bias, run)
    found: dict[str, Any] = {"peak_mib": round((scene.peak() - held) / 2**20, 1) if scene.cuda else None}
    seconds = seconds_of(lambda: gradients(inputs, bias, run), scene, scene.repeats)
    found["milliseconds"] = round(1000 * statistics.median(seconds), 3)
    # errors of a few sequences: the reference is large
    few = [tensor[:2] for tensor in inputs]
    mask = None if bias is None else bias[:2]
    exact = gradients([t.double() for t in few], None if mask is None else mask.double(), _reference(layer, rows, keys))
    names = ("output", "query", "bias") if probing else ("output", "query", "key", "value")
    pairs = zip(names, ours, exact, strict=True)
    found["relative_error"] = {what: float((a[:2].double() - b).norm() / b.norm()) for what, a, b in pairs}
    return found


def _runner(layer: Layer, name: str) -> Callable[..., Tensor]:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if name == "lean":
            return lean_attention(layer, query, key, value, mask)[0]
        if name == "lean in PyTorch":
            with torch_attention():
                return lean_attention(layer, query, key, value, mask)[0]
        # the mask that transformers hands over has the scores' dtype
        mask = None if mask is None else mask.to(query.dtype)
        if name == "eager":
            return eager_attention_forward(layer, query, key, value, mask, query.shape[-1] ** -0.5)[0]
        with _kernel(KERNELS[name]):
            out: Tensor = sdpa_attention_forward(layer, query, key, value, mask, is_causal=mask is None)[0]
        return out

    return attend


@contextmanager
def _kernel(backend: SDPBackend | None) -> Iterator[None]:
    if backend is None:
        yield
    else:
        with sdpa_kernel(backend):
            yield


def _reference(layer: Layer, rows: int, keys: int) -> Callable[..., Tensor]:
    """Attention as it is written down, in the dtype of its inputs."""

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        key, value = (t.repeat_interleave(layer.num_key_value_groups, dim=1) for t in (key, value))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if mask is None:
            seen = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril(keys - rows)
            scores = scores.masked_fill(~seen, -torch.inf)
        else:
            scores = scores + mask
        return (scores.softmax(-1) @ value).transpose(1, 2)

    return attend
