"""What the tests share: a tiny random policy, and the places of real data."""

from __future__ import annotations

import copy
import gc
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from atmanrl.models.policy import Policy

ROOT = Path(__file__).parents[1]
BLANK = ROOT / "experiments/laptop/blank"


def skip_without_packages_of(config):
    """Skip a test of a shipped config where a package that it needs is not installed."""
    for word, package in (("lora", "peft"), ("ReasoningGym", "reasoning_gym")):
        if word in config.read_text():
            pytest.importorskip(package)


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a process that runs tests; the one that hands them out to others starts these without waiting for torch."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return
    gc.disable()  # until all tests are collected, since next to nothing of what is imported is garbage
    import torch

    torch.set_num_threads(1)  # on busy cores more threads make tiny forward passes a hundred times slower
    if find_spec("hypothesis"):  # which the tests on a GPU do without
        from hypothesis import settings

        settings.register_profile("busy", deadline=None)  # a machine that is busy elsewhere is no failure
        settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest single tests, so that of several processes none ends long after the others."""
    items.sort(key=lambda item: not item.path.stem.endswith(("_gpu_checklist", "_repeat", "_bare_machine")))


def pytest_collection_finish() -> None:
    """Collect garbage again, but look no more at the modules and tests, which stay to the end."""
    gc.freeze()
    gc.enable()


def fenced(page: str, language: str, beginning: str) -> str:
    """The block of code on a page of the repository that begins in this way."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)
    return next(block for block in blocks if block.startswith(beginning))


@pytest.fixture(autouse=True)
def environment():
    """Variables that a test leaves behind are taken away: Lightning's ranks would make later trainers wait for others."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where tests marked `gpu` run: on CUDA, unless ATMANRL_GPU_TESTS_ON names another device to try them on."""
    import torch

    name = os.environ.get("ATMANRL_GPU_TESTS_ON", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device is here (ATMANRL_GPU_TESTS_ON=cpu tries these tests on a CPU)")
    return torch.device(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real GSM8K, MMLU and part-of-speech data, where a machine has it."""
    folder = Path(os.environ.get("ATMANRL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set ATMANRL_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random Llama of two layers and 32 dimensions with the laptop tokenizer, in Hugging Face format."""
    from lightning import seed_everything
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    config = AutoConfig.from_pretrained(BLANK)
    config.update({"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8})
    config.update({"layer_types": None} if hasattr(config, "layer_types") else {})
    seed_everything(0, verbose=False)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BLANK).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded_policy(tiny_folder) -> Policy:
    """That policy, built, in eval mode, in float64 so that references agree to rounding; tests take a copy of it."""
    from atmanrl.models.policy import Policy

    policy = Policy(str(tiny_folder), dtype="float64").build()
    policy.eval()
    return policy


@pytest.fixture
def tiny_policy(loaded_policy) -> Policy:
    """A copy of it for one test, which takes a quarter of the time that loading takes."""
    return copy.deepcopy(loaded_policy)


@pytest.fixture
def start(tiny_policy) -> torch.Tensor:
    """The weights of that policy as they were loaded, in one vector."""
    import torch

    return torch.cat([p.detach().flatten() for p in tiny_policy.parameters()])


@pytest.fixture(scope="session")
def reader_of_reasoning(tiny_folder):
    """A policy that copies from its reasoning alone (for the tests of `faithfulness`, as the next two)."""
    from hand_built import copying_policy

    return copying_policy(tiny_folder, "reasoning")


@pytest.fixture(scope="session")
def reader_of_prompt(tiny_folder):
    """A policy that ignores its reasoning."""
    from hand_built import copying_policy

    return copying_policy(tiny_folder, "prompt")


@pytest.fixture
def rollouts(tiny_policy):
    """Rollouts of several lengths, one without a reasoning and one without an answer."""
    from hand_built import rollout

    texts = [
        (" He has 3 + 4 = 7 apples in all.\n##### 7", "7"),
        (" 3 + 4 is 12.\n##### 12", "7"),
        ("##### 7", "7"),
        (" 3 + 4 = 7 apples", "7"),
    ]
    return [rollout(tiny_policy, "How many are 3 and 4?", text, gold, k) for k, (text, gold) in enumerate(texts)]
