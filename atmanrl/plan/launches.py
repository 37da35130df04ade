"""Kernels that a pass starts, one by one, from Python: where a pass is small, they are all of its time."""

from __future__ import annotations

from atmanrl.plan.shape import ModelShape

PER_LAYER = 40
"""Of one layer of a Llama as transformers writes it, in one dtype (under autocast on float32 weights they would be 51)."""
PER_PASS = 49
"""Of embedding, positions, head, and the drawing of a token by the sampler."""
BACKWARD = 2.0
"""A whole backward pass starts about twice as many as the forward pass."""
BACKWARD_TO_MASK = 1.5
"""With frozen weights it leaves their gradients out."""


def forward_launches(model: ModelShape) -> float:
    """Of a forward pass, or of a step of sampling. `tests/plan` counts them."""
    return model.layers * PER_LAYER + PER_PASS
