"""Models by transformers, whole or not at all: weights that were not loaded are named and refused."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch

from atmanrl.models import masks  # noqa: F401  gives the masks of what is loaded their room
from atmanrl.models.errors import PolicyError
from atmanrl.models.gguf import as_unpacked, unpacking
from atmanrl.models.loading import Source, refusals
from atmanrl.notes import say

Weights = Literal["loaded", "meta", "empty"]


def load_model(source: Source, config: Any) -> Any:
    """Load a model with its weights.

    Raises:
        PolicyError: no such model, or weights that are not all of its weights and only those (see `Policy.strict`).
    """
    from transformers import AutoModelForCausalLM

    packed = {} if source.gguf is None else {"quantization_config": unpacking()}
    with refusals(source, "loaded"), _without_reports():
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.root, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **source.options,
            **source.hub, **packed,
        )  # fmt: skip
    model = as_unpacked(model) if packed else model
    wrong = _differences(loading)
    if not wrong:
        return model
    wrong = f"the weights in {source.path!r} are not those of a {type(model).__name__}: {wrong}"
    if source.strict:
        raise PolicyError(
            f"{wrong}. Give a folder with all of the model's weights and no others, or, if this is on purpose, "
            "policy.strict=false."
        )
    say(f"{wrong}.")
    return model


def draw_model(source: Source, config: Any) -> Any:
    """Return a model with new weights, drawn from the current random state."""
    from transformers import AutoModelForCausalLM

    with refusals(source, "made"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code, **source.options)


def unfilled_model(source: Source, config: Any, weights: Weights, generates: bool) -> Any:
    """Return a model by its configuration alone; buffers such as rotary tables are correct unless it is on `meta`.

    Args:
        source: of the model.
        config: its configuration.
        weights: `meta` or `empty`.
        generates: whether the folder's generation configuration is wanted.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    with (
        refusals(source, "made"),
        no_init_weights(),
        torch.device("meta" if weights == "meta" else "cpu"),
    ):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code, **source.options)
    model.tie_weights()
    if generates and model.can_generate():
        with suppress(OSError):  # a folder need not have one
            model.generation_config = GenerationConfig.from_pretrained(source.root, revision=source.revision)
    return model


def _differences(loading: dict[str, Any]) -> str:
    """What of a model was not loaded, and what of its files was left over; empty if all is well."""
    parts = []
    missing, over = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    if missing:
        parts.append(f"{_named(missing)} {_is(missing)} missing and drawn anew")
    if over:
        parts.append(f"{_named(over)} {_is(over)} left over")
    for name, here, there in sorted(loading["mismatched_keys"])[:3]:
        parts.append(f"{name} has shape {list(here)} instead of {list(there)} and is drawn anew")
    parts += [str(message) for message in loading["error_msgs"]]
    suffixed = [name for name in over for wanted in missing if name.endswith(f".{wanted}")]
    if suffixed and len(suffixed) == len(over):
        prefix = suffixed[0].removesuffix(max((w for w in missing if suffixed[0].endswith(f".{w}")), key=len))
        parts.append(f"all names begin with {prefix!r}, which has to go")
    return "; ".join(parts)


def _named(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _is(names: Collection[str]) -> str:
    return "is" if len(names) == 1 else "are"


@contextmanager
def _without_reports() -> Iterator[None]:
    """Without the library's table of missing and left over weights, of which our own sentence tells."""
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return not ("LOAD REPORT" in record.getMessage() or "seem corrupted" in record.getMessage())

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
