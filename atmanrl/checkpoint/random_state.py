"""The random state of a run on one process, so that a run that goes on draws what it would have drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the state of all generators, as tensors and plain values: a checkpoint may hold nothing else."""
    numpy: Any = np.random.get_state()
    kind, keys, *place = numpy
    state = {
        "torch": torch.get_rng_state(), "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *place),
    }  # fmt: skip
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Give all generators the state that `random_state` has returned."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "numpy" in state:  # which older checkpoints do not have
        kind, keys, *place = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *place))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
