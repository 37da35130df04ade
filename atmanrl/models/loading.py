"""Models and tokenizers by transformers, whole or not at all: what was not loaded is named and refused."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError, safe_open

from atmanrl.errors import first_line
from atmanrl.models import masks  # noqa: F401  gives the masks of what is loaded their room
from atmanrl.models.errors import UNSAFE, PolicyError
from atmanrl.notes import say

Weights = Literal["loaded", "meta", "empty"]

LFS_POINTER = b"version https://git-lfs"
OUTPUTS = {"output_attentions": False, "output_hidden_states": False, "return_dict": True, "use_cache": True}
"""What a forward pass returns here, whatever a model's configuration says."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from and how it is loaded; `Policy` explains the options."""

    path: str
    dtype: str = "float32"
    attn_implementation: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    strict: bool = True

    @property
    def hub(self) -> dict[str, Any]:
        """Options of everything that is read from a folder or the hub."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @property
    def options(self) -> dict[str, Any]:
        """Options of a model."""
        return {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attn_implementation}


@contextmanager
def _refusals(source: Source, verb: str) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        yield
    except PolicyError:
        raise
    except (
        OSError, ValueError, ImportError, RuntimeError, AssertionError, KeyError, EOFError, pickle.UnpicklingError,
        SafetensorError,
    ) as error:  # fmt: skip
        reason = damaged_weights(Path(source.path)) or first_line(error)
        raise PolicyError(f"no model could be {verb} from {source.path!r}: {reason}") from error


def damaged_weights(folder: Path) -> str | None:
    """Which file of weights in a folder cannot be read, and what to do; None if there is none."""
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        if is_pointer(file):
            return f"{file} is a Git LFS pointer and not the weights; fetch them by `git lfs pull`."
        if file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt"):
                    pass
            except SafetensorError as error:
                return f"{file} is cut off or damaged ({first_line(error)}); copy it anew."
        else:
            try:
                torch.load(file, map_location="meta", weights_only=True)
            except pickle.UnpicklingError:
                return f"{file} cannot be read: {UNSAFE}"
            except (RuntimeError, EOFError) as error:
                return f"{file} is cut off or damaged ({first_line(error)}); copy it anew."
    return None


def is_pointer(file: Path) -> bool:
    """Whether Git LFS has left its pointer where a file should be."""
    with file.open("rb") as opened:
        return opened.read(len(LFS_POINTER)) == LFS_POINTER


def load_config(source: Source) -> Any:
    """A model's configuration; forward passes return what is needed here, and no token is padding that is none.

    Raises:
        PolicyError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    with _refusals(source, "loaded"):
        config = AutoConfig.from_pretrained(source.path, **source.hub)
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        for name, value in OUTPUTS.items():
            setattr(part, name, value)
        pad, size = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if pad is not None and size is not None and not 0 <= pad < size:
            part.pad_token_id = None  # an embedding cannot be made with it
    return config


def context_length(config: Any) -> int:
    """The longest sequence, in tokens, that a configuration allows; MPT has a name of its own for it."""
    names = ("max_position_embeddings", "max_seq_len")
    sizes = [getattr(config.get_text_config(), name, None) for name in names]
    return min((size for size in sizes if isinstance(size, int)), default=1 << 30)


def check_length(tokens: int, config: Any) -> None:
    """Refuse a sequence that is longer than a configuration allows.

    Raises:
        PolicyError: it is.
    """
    if tokens > (context := context_length(config)):
        raise PolicyError(f"{tokens} tokens exceed the model's context of {context}.")


@contextmanager
def plain_outputs(config: Any) -> Iterator[None]:
    """Within it, forward passes of a model that somebody else has loaded return what is needed here."""
    parts = list({id(c): c for c in (config, config.get_text_config())}.values())
    before = [{name: getattr(part, name) for name in OUTPUTS if hasattr(part, name)} for part in parts]
    try:
        for part in parts:
            for name, value in OUTPUTS.items():
                setattr(part, name, value)
        yield
    finally:
        for part, values in zip(parts, before, strict=True):
            for name, value in values.items():
                setattr(part, name, value)


def load_tokenizer(source: Source, base: Source) -> Any:
    """The tokenizer of a folder or of the hub; an adapter that comes without one has its base model's.

    Raises:
        PolicyError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder = Path(source.path)
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json") if (folder / name).exists()]
    if folder.is_dir() and not files:
        if base != source:
            return load_tokenizer(base, base)
        raise PolicyError(
            f"{source.path} holds no tokenizer (tokenizer.json); copy the model's tokenizer files into that folder."
        )
    for file in files:
        if is_pointer(file):
            raise PolicyError(f"{file} is a Git LFS pointer and not the tokenizer; fetch it by `git lfs pull`.")
    if not folder.exists() and not _may_be_on_hub(source.path):
        raise PolicyError(f"no tokenizer could be loaded from {source.path!r}: there is no such folder.")
    try:
        return AutoTokenizer.from_pretrained(source.path, **source.hub)
    except (OSError, ValueError) as error:
        raise PolicyError(f"no tokenizer could be loaded from {source.path!r}: {first_line(error)}") from error


def load_model(source: Source, config: Any) -> Any:
    """The model with its weights.

    Raises:
        PolicyError: no such model, or weights that are not all of its weights and only those (see `Policy.strict`).
    """
    from transformers import AutoModelForCausalLM

    with _refusals(source, "loaded"), _without_reports():
        model, loading = AutoModelForCausalLM.from_pretrained(
            source.path, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **source.options,
            **source.hub,
        )  # fmt: skip
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
    """A model with new weights, from the current random state."""
    from transformers import AutoModelForCausalLM

    with _refusals(source, "made"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code, **source.options)


def unfilled_model(source: Source, config: Any, weights: Weights, generates: bool) -> Any:
    """A model by its configuration alone; buffers such as rotary tables are right unless it is on `meta`.

    Args:
        source: of the model.
        config: its configuration.
        weights: `meta` or `empty`.
        generates: whether the folder's generation configuration is wanted.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.initialization import no_init_weights

    with (
        _refusals(source, "made"),
        no_init_weights(),
        torch.device("meta" if weights == "meta" else "cpu"),
    ):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=source.trust_remote_code, **source.options)
    model.tie_weights()
    if generates and model.can_generate():
        with suppress(OSError):  # a folder need not have one
            model.generation_config = GenerationConfig.from_pretrained(source.path, revision=source.revision)
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
    ends = [name for name in over for wanted in missing if name.endswith(f".{wanted}")]
    if ends and len(ends) == len(over):
        prefix = ends[0].removesuffix(max((w for w in missing if ends[0].endswith(f".{w}")), key=len))
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


def _may_be_on_hub(path: str) -> bool:
    """Whether the hub allows a model of that name."""
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return True
