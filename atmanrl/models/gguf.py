"""Models in GGUF files, llama.cpp's format: configuration, tokenizer and quantized weights in one file.

transformers reads them through the package `gguf`. Their weights are always unpacked here: where a kernel for packed weights
is installed transformers would keep those, which can be neither trained nor probed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from atmanrl.models.errors import PolicyError

SUFFIX = ".gguf"
PACKAGES = ("gguf", "accelerate")
"""What transformers needs to read such a file."""


def gguf_file(path: str) -> Path | None:
    """Return the GGUF file that a path names: itself, or the only one of a folder without a configuration.

    Args:
        path: of a file or a folder, or a name on the Hugging Face hub.

    Returns:
        The file; None where the path names a model in another format.

    Raises:
        PolicyError: there is no such file, a folder holds several, or the packages that read it are not installed.
    """
    file = Path(path)
    if file.is_dir() and not (file / "config.json").exists():
        files = sorted(file.glob(f"*{SUFFIX}"))
        if len(files) > 1:
            raise PolicyError(
                f"{path} holds {len(files)} GGUF files; give the path of one of them, such as {files[0]}."
            )
        file = files[0] if files else file
    if file.suffix != SUFFIX or file.is_dir():
        return None
    if not file.is_file():
        raise PolicyError(f"no model could be loaded from {path!r}: there is no such file.")
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise PolicyError(f"{path} needs {' and '.join(missing)}: pip install 'atmanrl[gguf]'.")
    return file


def unpacking() -> Any:
    """Return the option `quantization_config` that makes transformers unpack the weights."""
    from transformers import GgufConfig

    return GgufConfig(dequantize=True)


def as_unpacked(model: Any) -> Any:
    """Forget that a model's weights came out of a GGUF file: transformers would refuse to save it."""
    vars(model.config).pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    return model
