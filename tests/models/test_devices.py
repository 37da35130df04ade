"""What `auto` chooses, what is refused, and how CUDA is set up, with a GPU or without."""

import os
import subprocess
import sys

import pytest
import torch

from atmanrl import __main__, explain
from atmanrl.commands.probe.folder import Folder
from atmanrl.distributed import build
from atmanrl.errors import UserError
from atmanrl.grpo import GRPOModule
from atmanrl.models.devices import choose_device, choose_dtype, cudnn_attention
from atmanrl.models.policy import Policy
from atmanrl.probe import PaperSolver

QUICK = PaperSolver(steps=2)
TEXTS = ("3 + 4?", "3 + 4 = 7.\n", "7")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpus(monkeypatch):
    """As if there were two GPUs that compute in bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)


@pytest.fixture
def stored(tiny_folder, tmp_path):
    """Policies by the dtype that they are stored in."""

    def save(dtype: str) -> Policy:
        Policy(str(tiny_folder), dtype=dtype).build().save(tmp_path / dtype)
        return Policy(str(tmp_path / dtype))

    return save


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    assert choose_device("auto") == GPU
    assert choose_device("cuda:1") == torch.device("cuda:1") and choose_device("cpu") == CPU


def test_auto_takes_the_cpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)  # untried, so never taken by itself
    assert choose_device("auto") == CPU
    assert choose_device("mps") == torch.device("mps")
    with pytest.raises(UserError, match="'cuda' is not there: PyTorch sees the CPU and 0 CUDA GPUs and mps"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "meta", "", "cuda:x"])
def test_an_unknown_device(name):
    with pytest.raises(UserError, match=f"device '{name}' is unknown; choose auto, cpu"):
        choose_device(name)


def test_a_gpu_too_many(gpus):
    with pytest.raises(UserError, match="'cuda:2' is not there: PyTorch sees the CPU and 2 CUDA GPUs"):
        choose_device("cuda:2")


def test_auto_takes_bfloat16_for_weights_that_are_stored_so_on_a_gpu_that_has_it(gpus, stored, monkeypatch):
    narrow, wide = stored("bfloat16"), stored("float32")
    assert choose_dtype("auto", GPU, narrow) == "bfloat16"
    assert choose_dtype("auto", GPU, wide) == choose_dtype("auto", CPU, narrow) == "float32"
    assert choose_dtype("float64", CPU, narrow) == "float64" and choose_dtype("float32", GPU, narrow) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert choose_dtype("auto", GPU, narrow) == "float32"


def test_unknown_dtypes(stored):
    with pytest.raises(UserError, match="dtype 'int8' is unknown; choose one of auto, float32"):
        choose_dtype("int8", CPU, Policy("nowhere"))
    with pytest.raises(UserError, match="does not exist on mps"):
        choose_dtype("float64", torch.device("mps"), Policy("nowhere"))


def test_a_model_that_cannot_be_read_is_told_when_it_is_built(gpus):
    assert choose_dtype("auto", GPU, Policy("./nowhere")) == "float32"


def test_explain_loads_to_a_device_and_in_a_dtype(tiny_folder):
    found = explain(str(tiny_folder), None, *TEXTS, solver=QUICK, device="cpu", dtype="bfloat16")
    assert (found.settings["device"], found.settings["dtype"]) == ("cpu", "bfloat16")
    exact = explain(str(tiny_folder), None, *TEXTS, solver=QUICK, dtype="float64")
    assert exact.settings["dtype"] == "float64" and found.mask.dtype == torch.float32
    assert 0 < abs(found.loss_initial - exact.loss_initial) < 0.05
    with pytest.raises(UserError, match="device 'gpu' is unknown"):
        explain(str(tiny_folder), None, *TEXTS, device="gpu")


def test_explain_leaves_a_loaded_model_where_and_as_it_is(tiny_policy, gpus):
    found = explain(tiny_policy.model, tiny_policy.tokenizer, *TEXTS, solver=QUICK)
    assert (found.settings["device"], found.settings["dtype"]) == ("cpu", "float64")
    for options in ({"device": "cpu"}, {"dtype": "float32"}):
        with pytest.raises(UserError, match="this one is loaded already and stays as it is"):
            explain(tiny_policy.model, tiny_policy.tokenizer, *TEXTS, **options)


def test_a_probing_run_goes_on_with_the_device_and_dtype_it_was_begun_with(tmp_path):
    Folder(tmp_path, {"device": "auto"}).begin([], [], 1, "cuda:0", "bfloat16")
    Folder(tmp_path, {"device": "auto"}).begin([], [], 1, "cuda:1", "bfloat16")
    with pytest.raises(UserError, match="computed with --device=cuda, which would be cpu here: give --device=cuda, or"):
        Folder(tmp_path, {"device": "auto"}).begin([], [], 1, "cpu", "bfloat16")
    with pytest.raises(UserError, match="--dtype=bfloat16, which would be float32 here"):
        Folder(tmp_path, {"device": "auto"}).begin([], [], 1, "cuda", "float32")


@pytest.mark.parametrize("allowed", [False, True])
def test_attention_by_cudnn_is_off_in_a_run_unless_it_is_asked_for(tiny_folder, allowed):
    with cudnn_attention(not allowed):
        policy = Policy(str(tiny_folder), cudnn_attention=allowed)
        build(policy, GRPOModule(policy))
        assert torch.backends.cuda.cudnn_sdp_enabled() == allowed == policy.unbuilt().cudnn_attention


def test_attention_by_cudnn_is_off_while_something_is_explained(tiny_policy):
    seen = []
    tiny_policy.model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cuda.cudnn_sdp_enabled()))
    with cudnn_attention(True):
        explain(tiny_policy.model, tiny_policy.tokenizer, *TEXTS, solver=QUICK)
        assert torch.backends.cuda.cudnn_sdp_enabled()
    assert seen and not any(seen)


@pytest.mark.parametrize(
    ("set_by_user", "expected"),
    [({}, "expandable_segments:True"), ({"PYTORCH_ALLOC_CONF": "x"}, "x"), ({"PYTORCH_CUDA_ALLOC_CONF": "y"}, None)],
)
def test_cuda_memory_grows_in_place_unless_the_user_says_otherwise(monkeypatch, set_by_user, expected):
    for name in __main__.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    for name, value in set_by_user.items():
        monkeypatch.setenv(name, value)
    __main__.grow_in_place()
    assert os.environ.get("PYTORCH_ALLOC_CONF") == (expected if sys.platform == "linux" else set_by_user.get("x"))


def test_the_allocator_is_configured_before_torch_is_imported(tmp_path):
    """Afterwards PyTorch would not read it."""
    script = (
        "import os, sys; from atmanrl.__main__ import grow_in_place, main; import atmanrl.__main__ as m\n"
        "assert 'torch' not in sys.modules\n"
        "m.grow_in_place = lambda: (grow_in_place(), print('torch' in sys.modules), sys.exit())\n"
        "main(['probe', '--device=none'])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.startswith("False"), found.stderr
