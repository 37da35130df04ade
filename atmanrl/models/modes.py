"""How a model runs for a while: in eval mode, and with the outputs that are needed here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

OUTPUTS = {"output_attentions": False, "output_hidden_states": False, "return_dict": True, "use_cache": True}
"""What a forward pass returns here, whatever a model's configuration says."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode; when the block ends, every module is back in the mode that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def text_and_whole(config: Any) -> list[Any]:
    """Return a configuration and the one of its language model, which is mostly the same."""
    return list({id(part): part for part in (config, config.get_text_config())}.values())


def set_outputs(config: Any) -> None:
    """Let forward passes return what is needed here."""
    for part in text_and_whole(config):
        for name, value in OUTPUTS.items():
            setattr(part, name, value)


@contextmanager
def plain_outputs(config: Any) -> Iterator[None]:
    """Let forward passes of a model that somebody else has loaded return what is needed here, until the block ends."""
    parts = text_and_whole(config)
    before = [{name: getattr(part, name) for name in OUTPUTS if hasattr(part, name)} for part in parts]
    try:
        set_outputs(config)
        yield
    finally:
        for part, values in zip(parts, before, strict=True):
            for name, value in values.items():
                setattr(part, name, value)
