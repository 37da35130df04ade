"""`atmanrl export` of a checkpoint of one process, and of what is none."""

import pytest
import torch
import yaml
from disk import full_disk

from atmanrl.__main__ import main
from atmanrl.models.policy import LoRA, Policy, PolicyError


@pytest.fixture
def run(tmp_path, tiny_folder):
    """A run's folder with a checkpoint of the tiny policy, and what it was made from."""
    policy = Policy(str(tiny_folder)).build()
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(2)
    state = {f"policy.{name}": weight for name, weight in policy.state_dict().items()}
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": state}, tmp_path / "checkpoints/last.ckpt")
    config = {"model": {"class_path": "GRPOModule", "init_args": {"policy": {"path": str(tiny_folder), "lora": None}}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path, policy


def export(folder, *more) -> int:
    return main(["export", "--ckpt", str(folder / "checkpoints/last.ckpt"), "--out", str(folder / "out"), *more])


@pytest.mark.parametrize(("options", "dtype"), [([], torch.float32), (["--dtype", "bfloat16"], torch.bfloat16)])
def test_the_same_logits(run, options, dtype):
    folder, policy = run
    assert export(folder, *options) == 0
    loaded = Policy(str(folder / "out"), dtype=str(dtype).removeprefix("torch.")).build()
    ids = torch.arange(3, 15)[None]
    if dtype == torch.float32:
        assert torch.equal(loaded.model(ids).logits, policy.model(ids).logits)
    state = policy.model.state_dict()
    assert all(torch.equal(weight, state[name].to(dtype)) for name, weight in loaded.model.state_dict().items())
    assert loaded.eos_ids == policy.eos_ids and not (folder / "out.part").exists()


def test_another_models_checkpoint(run, tiny_folder, capsys):
    folder, policy = run
    broken = {f"policy.{name}": weight for name, weight in policy.state_dict().items()}
    broken["policy.model.model.norm.weight"] = torch.zeros(7)
    torch.save({"state_dict": broken}, folder / "checkpoints/last.ckpt")
    assert export(folder) == 1
    assert "model.norm.weight has shape [7] instead of [32]" in capsys.readouterr().err
    assert not (folder / "out").exists()
    with pytest.raises(PolicyError, match="model.norm.weight is missing"):
        Policy(str(tiny_folder)).with_weights(
            {n: w for n, w in policy.model.state_dict().items() if "model.norm" not in n}
        )
    with pytest.raises(PolicyError, match="extra is unknown"):
        Policy(str(tiny_folder)).with_weights(policy.model.state_dict() | {"extra": torch.zeros(1)})


def test_what_cannot_be_exported(run, capsys):
    folder, _ = run
    assert main(["export", "--ckpt", str(folder / "none.ckpt"), "--out", str(folder / "out")]) == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    assert export(folder, "--merge_lora", "true") == 1
    assert "leave --merge_lora out" in capsys.readouterr().err
    assert main(["export", "--ckpt", str(folder / "checkpoints/last.ckpt"), "--out", str(folder / "a.ckpt")]) == 1
    assert "is one file already" in capsys.readouterr().err
    torch.save([1], folder / "checkpoints/last.ckpt")
    assert export(folder) == 1
    assert "it holds a list" in capsys.readouterr().err
    (folder / "checkpoints/last.ckpt").write_bytes(b"torn")
    assert export(folder) == 1
    assert "cannot be read" in capsys.readouterr().err
    (folder / "config.yaml").unlink()
    assert export(folder) == 1
    error = capsys.readouterr().err
    assert "last.ckpt would be RUN/checkpoints/NAME.ckpt; name the run's config.yaml by --config" in error


def test_a_full_disk_leaves_nothing_behind(run, capsys):
    folder, _ = run
    with full_disk():
        assert export(folder) == 1
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: the policy could not be written to") and "Traceback" not in error
    assert not (folder / "out").exists() and not (folder / "out.part").exists()


def test_a_checkpoint_cannot_run_code(run, capsys):
    folder, _ = run

    class Evil:
        def __reduce__(self):
            return (type(folder).touch, (folder / "pwned",))

    torch.save({"state_dict": {}, "evil": Evil()}, folder / "checkpoints/last.ckpt")
    assert export(folder) == 1 and not (folder / "pwned").exists()
    assert capsys.readouterr().err == (
        f"atmanrl: error: the checkpoint {folder / 'checkpoints/last.ckpt'} cannot be read: it holds more than tensors and "
        "plain values, or is damaged; what could run code is never loaded.\n"
    )


def test_adapters_merged_or_alone(run, tiny_folder):
    pytest.importorskip("peft")
    folder, _ = run
    policy = Policy(str(tiny_folder), lora=LoRA(r=2)).build()
    with torch.no_grad():
        for name, weight in policy.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    state = {f"policy.{name}": weight for name, weight in policy.state_dict().items()}
    torch.save({"state_dict": state}, folder / "checkpoints/last.ckpt")
    config = {"model": {"init_args": {"policy": {"path": str(tiny_folder), "lora": {"r": 2}}}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    ids = torch.arange(3, 15)[None]
    assert export(folder) == 0
    assert torch.allclose(Policy(str(folder / "out")).build().model(ids).logits, policy.model(ids).logits, atol=1e-4)
    assert main(["export", "--ckpt", str(folder / "checkpoints/last.ckpt"), "--out", str(folder / "merged"),
                 "--merge_lora", "true"]) == 0  # fmt: skip
    assert (folder / "out/adapter_model.safetensors").exists() and not (folder / "out/model.safetensors").exists()
    assert (folder / "merged/model.safetensors").exists() and not (folder / "merged/adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "is no YAML that can be read (while parsing a flow node"),
        (b"model: \xff", "is no YAML that can be read"),
        ("[" * 5000, "is no YAML that can be read"),
        ("model: 5", "names no model.init_args.policy."),
        ("model: {init_args: {policy: [1]}}", "names no model.init_args.policy."),
        ("model: {init_args: {policy: {path: a, colour: red}}}", "Group 'policy' does not accept option 'colour'"),
        ("model: {init_args: {policy: {path: a, lora: 5}}}", "model.init_args: policy.lora"),
        ("model: {init_args: {policy: {path: a, dtype: float3}}}", "model.init_args: policy.dtype"),
    ],
)
def test_a_config_that_is_none(run, capsys, text, says):
    folder, _ = run
    config = folder / "other.yaml"
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert export(folder, "--config", str(config)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"atmanrl: error: {config}") and says in said and said.count("\n") == 1 and len(said) < 500
    assert not (folder / "out").exists()
