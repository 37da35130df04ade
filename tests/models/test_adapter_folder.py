"""A folder that holds an adapter alone: merged into its base, trained on, or refused."""

import json
import shutil

import pytest
import torch

from atmanrl import explain
from atmanrl.grpo.reference import Reference
from atmanrl.models.policy import LoRA, Policy, PolicyError
from atmanrl.probe.solvers import PaperSolver

pytest.importorskip("peft")
IDS = torch.arange(3, 15)[None]


def logits(policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(IDS).logits


@pytest.fixture(scope="module")
def adapter(tiny_folder, tmp_path_factory):
    """An adapter that says something, and the logits of its base with it."""
    folder = tmp_path_factory.mktemp("adapter")
    policy = Policy(str(tiny_folder), dtype="float64", lora=LoRA(r=2, alpha=8, export="adapter")).build()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.1)
    policy.save(folder)
    return folder, logits(policy)


def test_it_is_merged_and_all_weights_learn(adapter, tmp_path, capsys):
    folder, expected = adapter
    policy = Policy(str(folder), dtype="float64").build()
    assert torch.allclose(logits(policy), expected, rtol=0, atol=1e-8)
    assert "is merged into its weights" in capsys.readouterr().err
    assert all(p.requires_grad for p in policy.parameters()) and not policy.model.training
    assert not any("lora" in name or "base" in name for name, _ in policy.model.named_parameters())
    policy.save(tmp_path / "whole")
    assert torch.allclose(logits(Policy(str(tmp_path / "whole"), dtype="float64").build()), expected, atol=1e-5)
    assert policy.with_weights(policy.model.state_dict()).tokenizer is not None


def test_it_is_trained_on_and_saved_again(adapter, tiny_folder, tmp_path):
    folder, expected = adapter
    policy = Policy(str(folder), dtype="float64", lora=LoRA(r=2, alpha=8, export="adapter")).build()
    assert torch.equal(logits(policy), expected)
    learn = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert learn and all("lora_" in name for name in learn)
    policy.save(tmp_path / "again")
    assert json.loads((tmp_path / "again/adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny_folder
    )
    again = Policy(str(tmp_path / "again"), dtype="float64", lora=LoRA(r=2, alpha=8)).build()
    assert torch.equal(logits(again), expected)


@pytest.mark.parametrize(
    ("lora", "says"),
    [
        (LoRA(r=4, alpha=8), r"r=4 and alpha=8, the adapter in .* r=2, alpha=8: give its options"),
        (LoRA(r=2, alpha=32), r"alpha=32, the adapter in .* alpha=8"),
        (LoRA(r=2, alpha=8, target_modules=["q_proj"]), r"no such weight"),
    ],
)
def test_other_options_are_refused(adapter, lora, says):
    with pytest.raises(PolicyError, match=says):
        Policy(str(adapter[0]), lora=lora).build()


def test_the_penalty_keeps_to_the_policy_that_the_run_starts_from(adapter):
    """And not to the base: the adapter was trained before."""
    folder, expected = adapter
    policy = Policy(str(folder), dtype="float64", lora=LoRA(r=2, alpha=8)).build()

    class Alone:
        device_mesh = _trainer = None

    reference = Reference()
    reference.keep(policy, Alone())
    with torch.no_grad(), reference.of(policy) as model:
        assert torch.equal(model(IDS).logits, expected)


def test_it_can_be_explained(adapter):
    folder, _ = adapter
    assert len(explain(str(folder), None, "1 + 1?", " so 2.", "2", solver=PaperSolver(steps=2)).saliency) > 1


def spoil(folder, **options) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/such/base"}, "/no/such/base"),
        ({"peft_type": "IA3"}, "kind IA3"),
        ({"target_modules": ["q_proj"]}, "does not fit"),
    ],
)
def test_folders_that_cannot_be_used(adapter, tmp_path, options, says):
    folder = shutil.copytree(adapter[0], tmp_path / "spoilt")
    spoil(folder, **options)
    with pytest.raises(PolicyError, match=says) as caught:
        Policy(str(folder)).build()
    assert "\n" not in str(caught.value)


def test_an_adapter_that_is_cut_off(adapter, tmp_path):
    folder = shutil.copytree(adapter[0], tmp_path / "half")
    data = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(PolicyError, match="the adapter in .* cannot be loaded"):
        Policy(str(folder)).build()
