"""What is measured on: a device, Llamas with random weights that are drawn there, and rollouts of random tokens."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atmanrl.models.policy import Policy
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.probe.target import Target

TOKENIZER = Path(__file__).parents[2] / "experiments/laptop/blank"
LLAMA_3B = {
    "vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096,
}  # fmt: skip
"""Llama-3.2-3B."""
LLAMA_1B = LLAMA_3B | {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64}
"""Llama-3.2-1B."""
TINY = {
    "vocab_size": 768, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Where and what is measured.

    Attributes:
        device: of the model.
        tiny: whether all shapes are small, to try the scripts.
        flops: the data sheet's dense bf16 FLOP/s of the device.
        bandwidth: the data sheet's bytes/s of its memory.
        shape: of the model, as a Llama's configuration has it.
        queries: problems of an update; group: rollouts of each.
        prompt: tokens of a prompt; completion: of a completion.
    """

    device: torch.device
    tiny: bool
    flops: float
    bandwidth: float
    shape: dict[str, int]
    queries: int = 8
    group: int = 8
    prompt: int = 160
    completion: int = 250

    @classmethod
    def of(cls, device: str, tiny: bool, tflops: float, terabytes: float) -> Scene:
        """The paper's update, or one of a few short rollouts."""
        shape = TINY if tiny else LLAMA_3B
        scene = cls(torch.device(device), tiny, tflops * 1e12, terabytes * 1e12, shape)
        return replace(scene, queries=2, group=2, prompt=14, completion=24) if tiny else scene

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def rollouts(self) -> int:
        """Of an update."""
        return self.queries * self.group

    @property
    def repeats(self) -> int:
        """How often a short piece of work is measured."""
        return 1 if self.tiny else 5

    @property
    def lengths(self) -> Lengths:
        """As `atmanrl plan` is told."""
        return Lengths(self.prompt, self.completion, ANSWER, DELIMITER)

    @property
    def hardware(self) -> Hardware:
        """As `atmanrl plan` is told."""
        memory = torch.cuda.get_device_properties(self.device).total_memory if self.cuda else 64e9
        return Hardware(1, memory, self.flops, self.bandwidth)

    def prompts(self) -> list[list[int]]:
        """Token ids, `queries` of them."""
        return [tokens(self.prompt, seed) for seed in range(self.queries)]

    def targets(self) -> list[Target]:
        """The probe's view of an update: reasonings of a third less to a third more tokens than on average."""
        found = []
        for i, prompt in enumerate(self.prompts()):
            for k in range(self.group):
                share = 2 / 3 + 2 / 3 * (k / max(1, self.group - 1))
                cot = round((self.completion - DELIMITER - ANSWER) * share)
                tail = tokens(cot + DELIMITER + ANSWER, 1000 + i * self.group + k)
                found.append(Target(tuple(prompt), tuple(tail[:cot]), tuple(tail[cot:-ANSWER]), tuple(tail[-ANSWER:])))
        return found

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def fresh_peak(self) -> None:
        """Forget what was the most memory so far."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """The most bytes that tensors took since `fresh_peak`; 0 on a CPU, which counts none."""
        return torch.cuda.max_memory_allocated(self.device) if self.cuda else 0


DELIMITER, ANSWER = 2, 3
"""Tokens of a delimiter and of a gold answer."""


def tokens(count: int, seed: int) -> list[int]:
    """Random tokens that the tokenizer knows, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, 700, (count,), generator=generator).tolist()


@contextmanager
def folder(shape: dict[str, int]) -> Iterator[Path]:
    """A folder with a Llama's configuration and a tokenizer, without weights."""
    from transformers import LlamaConfig

    with tempfile.TemporaryDirectory() as name:
        config = LlamaConfig(**shape, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0)
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(name)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            if (TOKENIZER / file).is_file():
                shutil.copy(TOKENIZER / file, name)
        yield Path(name)


@contextmanager
def random_policy(scene: Scene, dtype: str, **options: Any) -> Iterator[Policy]:
    """A policy whose weights are drawn on the device and whose completions never come to an end."""
    with folder(scene.shape) as place:
        with scene.device:
            policy = Policy(str(place), pretrained=False, dtype=dtype, **options).build()  # type: ignore[arg-type]
        policy.eval()
        policy.eos_ids = (-1,)
        yield policy


def attention_inputs(
    scene: Scene, sequences: int, rows: int, keys: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries `[B, H, R, D]`, keys and values `[B, K, S, D]` of one layer, small as a norm leaves them."""
    shape = scene.shape
    generator = torch.Generator(scene.device).manual_seed(0)

    def drawn(heads: int, length: int) -> Tensor:
        size = (sequences, heads, length, shape["head_dim"])
        return torch.randn(size, generator=generator, device=scene.device).to(dtype)

    kv = shape["num_key_value_heads"]
    return drawn(shape["num_attention_heads"], rows), drawn(kv, keys), drawn(kv, keys)


def seconds_of(work: Callable[[], Any], scene: Scene, repeats: int) -> list[float]:
    """Seconds of some runs of a piece of work, the device waited for."""
    found = []
    for _ in range(repeats):
        scene.synchronise()
        began = time.perf_counter()
        work()
        scene.synchronise()
        found.append(time.perf_counter() - began)
    return found


def parameter_bytes(model: nn.Module) -> int:
    """Of all weights, each once."""
    return sum(p.nbytes for p in model.parameters())


def ratio(predicted: float, measured: float) -> dict[str, float | None]:
    """A plan's figure beside the measured one; no ratio where nothing was measured."""
    return {
        "predicted": predicted,
        "measured": measured,
        "predicted/measured": round(predicted / measured, 3) if measured else None,
    }
