"""Kernels that Python launches one by one in a pass: they take all the time of a small one."""

from __future__ import annotations

from atmanrl.plan.shape import ModelShape

PER_LAYER = 40
"""Kernels of one layer of transformers' Llama in one dtype (51 under autocast on float32 weights)."""
PER_PASS = 49
"""Kernels of embedding, positions, head, and drawing a token."""
BACKWARD = 2.0
"""A backward pass launches about twice as many as the forward pass."""
BACKWARD_TO_MASK = 1.5
"""The same with frozen weights, whose gradients are left out."""


IN_GRAPH_SECONDS = 5e-6
"""What a kernel of a CUDA graph takes besides the reading of weights and caches: 1,169 kernels of a 3B-shaped Llama made
8.2 ms a token on an H100, where reading takes 2.4 ms (`experiments/gpu`)."""


def forward_launches(model: ModelShape) -> float:
    """Return the kernels of a forward pass, or of a step of sampling; `tests/plan` counts them."""
    return model.layers * PER_LAYER + PER_PASS
