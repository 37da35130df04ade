"""Where a model comes from, and what is read before its weights: its configuration and its tokenizer."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id
from safetensors import SafetensorError

from atmanrl.errors import first_line
from atmanrl.models.errors import PolicyError
from atmanrl.models.gguf import gguf_file
from atmanrl.models.modes import set_outputs, text_and_whole
from atmanrl.models.weights import damaged_weights, is_pointer


@dataclass(frozen=True)
class Source:
    """Where a model comes from and how it is loaded; `Policy` explains the options.

    Example:
        `Source("Qwen/Qwen2.5-0.5B", dtype="bfloat16", revision="main")`
    """

    path: str
    dtype: str = "float32"
    attn_implementation: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    strict: bool = True

    @property
    def gguf(self) -> Path | None:
        """The GGUF file that holds the model, if it is in that format (see `gguf_file`)."""
        return gguf_file(self.path)

    @property
    def root(self) -> str:
        """The folder that holds the model's files, or its name on the hub."""
        return self.path if self.gguf is None else str(self.gguf.parent)

    @property
    def hub(self) -> dict[str, Any]:
        """Options of everything that is read from a folder or the hub."""
        options = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        return options if self.gguf is None else {**options, "gguf_file": self.gguf.name}

    @property
    def options(self) -> dict[str, Any]:
        """Options of a model."""
        return {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attn_implementation}


@contextmanager
def refusals(source: Source, verb: str) -> Iterator[None]:
    """Turn what transformers raises into one sentence."""
    try:
        yield
    except PolicyError:
        raise
    except (
        OSError, ValueError, ImportError, RuntimeError, AssertionError, KeyError, EOFError, pickle.UnpicklingError,
        SafetensorError, IndexError, struct.error,
    ) as error:  # fmt: skip
        reason = damaged_weights(Path(source.path)) or first_line(error)
        raise PolicyError(f"no model could be {verb} from {source.path!r}: {reason}") from error


def load_config(source: Source) -> Any:
    """Load a model's configuration, with the outputs that are needed here and without padding that is no token.

    Raises:
        PolicyError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    if not Path(source.path).exists() and not _may_be_on_hub(source.path):
        raise PolicyError(f"no model could be loaded from {source.path!r}: there is no such folder.")
    with refusals(source, "loaded"):
        config = AutoConfig.from_pretrained(source.root, **source.hub)
    set_outputs(config)
    for part in text_and_whole(config):
        pad, size = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if pad is not None and size is not None and not 0 <= pad < size:
            part.pad_token_id = None  # an embedding cannot be made with it
    return config


def context_length(config: Any) -> int:
    """Return the longest sequence, in tokens, that a configuration allows; MPT has a name of its own for it."""
    names = ("max_position_embeddings", "max_seq_len")
    sizes = [getattr(config.get_text_config(), name, None) for name in names]
    return min((size for size in sizes if isinstance(size, int)), default=1 << 30)


def load_tokenizer(source: Source, base: Source) -> Any:
    """Load the tokenizer of a folder or of the hub; an adapter that comes without one has its base model's.

    Raises:
        PolicyError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder, is_gguf = Path(source.path), source.gguf is not None
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json") if (folder / name).exists()]
    if folder.is_dir() and not files and not is_gguf:
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
        return AutoTokenizer.from_pretrained(source.root, **source.hub)
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise PolicyError(f"no tokenizer could be loaded from {source.path!r}: {first_line(error)}") from error


def _may_be_on_hub(path: str) -> bool:
    """Whether the hub allows a model of that name."""
    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return True
