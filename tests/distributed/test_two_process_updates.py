"""Updates on two processes against the same updates on one: FSDP2, DDP, losses, LoRA, precision, checkpoints."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from launch import launch
from updates import CASES, SHARDED, Ragged, module_of, quiet, run, trainer_of

from atmanrl.__main__ import main
from atmanrl.distributed import slices
from atmanrl.models.policy import LoRA, Policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_folder) -> Path:
    """Policies for all cases: the tiny one, one with tied embeddings, and a wider one."""
    quiet()
    folder = tmp_path_factory.mktemp("updates")
    shutil.copytree(tiny_folder, folder / "tiny")
    for name, change in {"tied": {"tie_word_embeddings": True}, "wide": {"intermediate_size": 64}}.items():
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(tiny_folder)
        config.update(change)
        torch.manual_seed(0)
        shutil.copytree(tiny_folder, folder / name, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def one(folder) -> dict:
    found = {name: run(folder, **case) for name, case in CASES.items()}
    trainer = trainer_of(folder, "auto", 1, limit_val_batches=0)
    trainer.fit(module_of(Policy(str(folder / "tiny"), dtype="float64")), Ragged())
    trainer.save_checkpoint(folder / "full.ckpt")
    return found


@pytest.fixture(scope="module")
def two(folder, one) -> dict:
    launch(Path(__file__).with_name("updates.py"), folder)
    return torch.load(folder / "found0.pt") | {"other": torch.load(folder / "found1.pt")}


def close(ours: dict, theirs: dict) -> None:
    """But for the norms' backward pass, which rounds to float32: once for all rollouts of a prompt that is read once."""
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert torch.allclose(weight, theirs[name], rtol=0, atol=1e-6), name


def learned(run: dict) -> list[float]:
    """What the saliency reward's calibration has come to, where there is one: gradients earned, and the checks' sums."""
    state = run["learned"].get("saliency") or {"earned": 0.0, "tolerance": 0.0, "checks": []}
    return [state["earned"], state["tolerance"], *(v for _, check in state["checks"] for v in check.values())]


@pytest.mark.parametrize("case", CASES)
def test_two_process_updates_are_those_of_one(one, two, case):
    ours, theirs = two[case], one[case]
    assert ours["steps"] == theirs["steps"] == len(ours["tokens"])
    assert ours["tokens"] == theirs["tokens"]
    assert ours["learned"] == two["other"][case]["learned"] and learned(ours) == pytest.approx(
        learned(theirs), abs=1e-6
    )
    for mine, expected in zip(ours["rewards"], theirs["rewards"], strict=True):
        for reward, known in zip(mine, expected, strict=True):
            assert reward == pytest.approx(known, abs=1e-6, nan_ok=True)
    exact = {k: v for k, v in theirs["logged"].items() if not k.startswith(("probe/", "saliency/"))}
    assert {k: ours["logged"][k] for k in exact} == pytest.approx(exact, abs=1e-6)
    assert ours["logged"].keys() == theirs["logged"].keys()
    assert ours["evaluated"] == pytest.approx(theirs["evaluated"], abs=1e-6)
    close(ours["weights"], theirs["weights"])
    assert not two["other"][case]["weights"]  # gathered on the first process alone


def test_two_process_updates_are_uneven(one):
    """Else the test above would say nothing of ragged work."""
    lengths = [len(ids) for ids in one["grpo"]["tokens"][0]]
    assert min(lengths[:4]) > 3 * max(lengths[4:])
    rewards = one["grpo"]["rewards"][0]
    assert all(r["saliency"] == r["saliency"] for r in rewards[:4]) and all(
        r["saliency"] != r["saliency"] for r in rewards[4:]
    )


def test_two_process_options_do_something(one, folder):
    """Else the first test would say nothing of them."""
    assert all(one[case]["logged"]["kl"] > 0 for case in ("ddp", "dr_grpo", "lora"))
    assert one["ddp"]["logged"]["completions/clipped_ratio"] == 0.5
    assert one["tied"]["logged"]["groups_dropped"] == 0.5
    assert one["calibrated"]["learned"]["saliency"]["earned"] < 0
    start = Policy(str(folder / "tiny"), dtype="float64").build().model.state_dict()
    for case in ("idle", "idle_ddp"):
        assert one[case]["logged"]["groups_dropped"] == 1 == one[case]["steps"]
        assert all(torch.equal(weight, start[name]) for name, weight in one[case]["weights"].items())


def test_two_process_tied_weights_stay_tied(two):
    weights = two["tied"]["weights"]
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


def test_two_process_adapters_alone_learn(two, folder):
    before = Policy(str(folder / "tiny"), dtype="float64").build().model.state_dict()
    after = {n.replace(".base_layer", ""): w for n, w in two["lora"]["weights"].items() if "lora_" not in n}
    close(after, before)
    assert any("lora_B" in name and weight.any() for name, weight in two["lora"]["weights"].items())


def test_two_process_adapters_are_exported(one, two, folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 15)[None]
    trained = Policy(str(folder / "tiny"), dtype="float64", lora=LoRA(r=2, alpha=8))
    expected = trained.with_weights(one["lora"]["weights"]).model(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float64)
    base = AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float64)
    assert not torch.allclose(base(ids).logits, expected, atol=1e-4)
    assert torch.allclose(merged(ids).logits, expected, atol=1e-6)
    assert torch.allclose(PeftModel.from_pretrained(base, folder / "adapter")(ids).logits, expected, atol=1e-6)


def test_two_process_gathered_weights_run_freely(two, folder):
    """On one process alone, from inference mode, with a backward pass."""
    model = Policy(str(folder / "tied"), dtype="float64").build().model
    embedded = model.get_input_embeddings()(torch.arange(3, 15)[None]).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    assert torch.equal(two["gathered"]["logits"], logits)
    assert torch.equal(two["gathered"]["slope"], torch.autograd.grad(logits.sum(), embedded)[0])
    sizes = [found["gathered"]["slices"] for found in (two, two["other"])]
    assert sum(sizes) == sum(w.numel() for w in model.parameters()) and sizes[0] == sizes[1]
    assert two["gathered"]["learning"] and two["other"]["gathered"]["learning"]


def test_two_process_masters_move_where_bf16_weights_do_not(two):
    """At the paper's learning rate of 8e-7."""
    assert two["moved"]["fp32 masters"] > 0.9
    assert two["moved"]["bf16"] < 0.05


def test_two_process_sharded_checkpoint(one, two, folder):
    close(two["sharded"]["weights"], one["grpo"]["weights"])
    whole = slices.read(folder / SHARDED)
    assert len(whole["optimizer_states"]) == 1 and whole["global_step"] == 1
    state = whole["optimizer_states"][0]["state"][0]
    assert state["exp_avg"].shape == whole["state_dict"]["policy.model.model.embed_tokens.weight"].shape


def test_two_process_sharded_checkpoint_becomes_one_file(one, two, folder):
    """Which one process resumes."""
    assert main(["export", "--ckpt", str(folder / SHARDED), "--out", str(folder / "whole.ckpt")]) == 0
    policy = Policy(str(folder / "tiny"), dtype="float64")
    trainer = trainer_of(folder, "auto", 3, limit_val_batches=0)
    trainer.fit(module_of(policy), Ragged(), ckpt_path=folder / "whole.ckpt", weights_only=True)
    close(policy.model.state_dict(), one["grpo"]["weights"])


def test_two_process_checkpoint_of_another_model(two):
    assert len(two["sharded"]["errors"]) == 2
    for path, error in zip((SHARDED, "full.ckpt"), two["sharded"]["errors"], strict=True):
        sentence = f"{path} is of another model (policy.model.model.layers.0.mlp.gate_proj.weight has shape [48, 32] "
        assert sentence + "instead of [64, 32]): name the model that it was made of (--model.policy.path" in error


def test_two_process_full_disk(two):
    """Also where it is one process alone that cannot write."""
    for found in (*two["full_disk"], *two["other"]["full_disk"]):
        assert re.search(r"update_00002.ckpt: .*update_00001.ckpt is the last good one. Make room", found[0])
        assert found[1:] == ["last.ckpt", "update_00001.ckpt"]


def test_two_process_refusals(two):
    for errors in (two["refused"], two["other"]["refused"]):
        assert len(errors) == 5
        assert "data.val_problems gives 1 problems to 2 processes" in errors[0]
        assert "fill one update of 4" in errors[1]
        assert "FSDP2Strategy cannot run MaskProbe" in errors[2]
        assert "give --trainer.precision=32-true and --model.policy.dtype=bfloat16" in errors[3]
        assert "warm start runs on one process" in errors[4]


def test_two_process_index_cannot_run_code(two, folder, tmp_path):
    from atmanrl.checkpoint.reading import CheckpointError

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    import pickle

    bad = shutil.copytree(folder / SHARDED, tmp_path / "bad.ckpt")
    (bad / ".metadata").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        slices.read(bad)
    assert not (tmp_path / "pwned").exists()
