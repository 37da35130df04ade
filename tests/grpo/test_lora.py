"""LoRA: adapters alone learn, the probe sees them, and what is exported is what was trained."""

import logging
import shutil

import pytest
import torch
from lightning import Trainer
from tiny_runs import Feed, Lottery

from atmanrl.callbacks import RunCheckpoint
from atmanrl.checkpoint.reading import CheckpointError
from atmanrl.commands.exporting import ExportError, export_policy
from atmanrl.grpo import GRPOModule
from atmanrl.models import policy as policy_module
from atmanrl.models.policy import LoRA, Policy, PolicyError
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import PaperSolver
from atmanrl.rewards import SaliencyReward

pytest.importorskip("peft")
IDS = torch.arange(3, 15)[None]


def adapted(folder, lora=None, **options) -> Policy:
    return Policy(str(folder), dtype="float64", lora=lora or LoRA(r=4, alpha=16, export="merged"), **options)


def probe() -> MaskProbe:
    return MaskProbe(solver=PaperSolver(steps=5, lr=1e-2))


def train(policy: Policy, updates: int, root=None, ckpt_path=None) -> tuple[Trainer, Feed]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rewards = {"lottery": Lottery(), "saliency": SaliencyReward(probe=probe())}
    torch.manual_seed(1)
    module = GRPOModule(policy, rewards=rewards, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2))
    saved = [] if root is None else [RunCheckpoint(every_n_updates=1)]
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=bool(saved), max_steps=updates,
                      enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, callbacks=saved,
                      default_root_dir=root)  # fmt: skip
    feed = Feed(written=True)
    trainer.fit(module, feed, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else False)
    return trainer, feed


def split_state(policy: Policy) -> tuple[dict, dict]:
    state = {name: w.detach().clone() for name, w in policy.model.state_dict().items()}
    adapters = {name: w for name, w in state.items() if "lora_" in name}
    return adapters, {n.replace(".base_layer", ""): w for n, w in state.items() if n not in adapters}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def trained(tiny_folder):
    policy = adapted(tiny_folder)
    trainer, feed = train(policy, 2)
    return policy, trainer, feed.given


def test_two_updates_change_the_adapters_alone(trained, tiny_folder, tiny_policy):
    policy, trainer, _ = trained
    adapters, base = split_state(policy)
    assert trainer.global_step == 2
    assert type(policy.model) is type(tiny_policy.model)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == set(adapters)
    before = tiny_policy.model.state_dict()
    assert base.keys() == before.keys() and all(torch.equal(w, before[name]) for name, w in base.items())
    learnt = [name for name, w in adapters.items() if "lora_B" in name and w.any()]
    assert len(learnt) == 7 * len(policy.model.model.layers)  # all linear layers but the head
    assert float(trainer.callback_metrics["probe/loss_final"]) < float(trainer.callback_metrics["probe/loss_initial"])
    assert not torch.allclose(logits(policy.model), logits(tiny_policy.model))


def test_new_adapters_change_nothing(tiny_folder, tiny_policy):
    policy = adapted(tiny_folder).build()
    assert torch.equal(logits(policy.model), logits(tiny_policy.model))
    assert not any(part.training for part in policy.model.modules())


def test_what_is_exported_is_what_was_trained(trained, tmp_path):
    from transformers import AutoModelForCausalLM

    policy, *_ = trained
    adapters, _ = split_state(policy)
    policy.save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert torch.allclose(logits(merged), logits(policy.model), rtol=0, atol=1e-6)  # rotary tables are float32
    assert all(torch.equal(w, split_state(policy)[0][name]) for name, w in adapters.items())  # still unmerged
    policy.save(tmp_path / "half", "bfloat16")
    assert Policy(str(tmp_path / "half"), dtype="bfloat16").build().model.dtype == torch.bfloat16


def test_the_adapter_alone(trained, tiny_folder, tmp_path):
    from peft import PeftModel

    policy, *_ = trained
    policy.lora.export = "adapter"
    try:
        policy.save(tmp_path)
    finally:
        policy.lora.export = "merged"
    assert not (tmp_path / "model.safetensors").exists() and (tmp_path / "tokenizer.json").exists()
    loaded = PeftModel.from_pretrained(Policy(str(tiny_folder), dtype="float64").build().model, tmp_path)
    assert torch.equal(logits(loaded), logits(policy.model))


def test_the_probe_agrees_with_and_without_merging(trained, tmp_path):
    policy, _, given = trained
    policy.save(tmp_path)
    merged = Policy(str(tmp_path), dtype="float64").build()
    ours, theirs = (probe().solve(p, given[0]) for p in (policy, merged))
    valid = ~ours.reward.isnan()
    assert valid.sum() >= 3 and torch.equal(valid, ~theirs.reward.isnan())
    assert torch.allclose(ours.reward[valid], theirs.reward[valid], atol=1e-5)
    assert torch.allclose(ours.loss_final[valid], theirs.loss_final[valid], atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_run(trained, tiny_folder, tmp_path):
    train(adapted(tiny_folder), 1, tmp_path)
    policy = adapted(tiny_folder)
    train(policy, 2, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    ours, whole = split_state(policy), split_state(trained[0])
    for part, expected in zip(ours, whole, strict=True):
        assert all(torch.equal(w, expected[name]) for name, w in part.items())


def test_a_checkpoint_holds_adapters_and_optimizer_and_names_the_base(tiny_folder, tmp_path):
    train(adapted(tiny_folder), 1, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"] and all("lora_" in name for name in checkpoint["state_dict"])
    assert len(checkpoint["optimizer_states"][0]["state"]) == len(checkpoint["state_dict"])
    assert checkpoint["base"]["path"] == str(tiny_folder) and len(checkpoint["base"]["digest"]) > 64


def test_a_base_that_was_drawn_is_stored(tiny_folder, tmp_path):
    train(adapted(tiny_folder, pretrained=False), 1, tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert "base" not in checkpoint and any(name.endswith("base_layer.weight") for name in checkpoint["state_dict"])


@pytest.fixture
def other_base(tiny_folder, tmp_path):
    """A model of the same shapes and of other weights."""
    policy = Policy(str(tiny_folder), dtype="float32").build()
    with torch.no_grad():
        policy.model.model.norm.weight.add_(1)
    policy.save(tmp_path / "other")
    return tmp_path / "other"


def test_another_base_is_refused(tiny_folder, other_base, tmp_path):
    train(adapted(tiny_folder), 1, tmp_path)
    with pytest.raises(
        CheckpointError, match="holds adapters alone, of the model .* name the model that the run began"
    ):
        train(adapted(other_base), 2, ckpt_path=tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match="holds adapters alone, of the model"):
        export_policy(tmp_path / "checkpoints/last.ckpt", tmp_path / "out", adapted(other_base))


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_a_checkpoint_of_adapters_is_exported(trained, tiny_folder, tmp_path, kind):
    train(adapted(tiny_folder), 2, tmp_path)
    lora = LoRA(r=4, alpha=16, export=kind)
    export_policy(tmp_path / "checkpoints/last.ckpt", tmp_path / "out", adapted(tiny_folder, lora))
    assert (tmp_path / "out/adapter_model.safetensors").exists() == (kind == "adapter")
    exported = Policy(str(tmp_path / "out"), dtype="float64").build()
    assert torch.allclose(logits(exported.model), logits(trained[0].model), rtol=0, atol=1e-6)
    for other, says in (
        (None, "no model.init_args.policy.lora"),
        (LoRA(r=2), "holds other adapters than the config's"),
    ):
        policy = Policy(str(tiny_folder), dtype="float64", lora=other)
        with pytest.raises(ExportError, match=says):
            export_policy(tmp_path / "checkpoints/last.ckpt", tmp_path / "no", policy)


def test_adapters_of_a_bf16_policy_are_float32(tiny_folder, tmp_path):
    policy = Policy(str(tiny_folder), dtype="bfloat16", lora=LoRA(target_modules=["q_proj"])).build()
    assert {p.dtype for p in policy.model.parameters() if p.requires_grad} == {torch.float32}
    policy.save(tmp_path)
    assert Policy(str(tmp_path), dtype="bfloat16").build().model.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options", [{"r": 0}, {"alpha": 0}, {"dropout": 1.0}, {"target_modules": []}, {"export": "both"}]
)
def test_options_that_cannot_be(options):
    with pytest.raises(PolicyError, match="policy.lora"):
        LoRA(**options)


def test_modules_that_are_not_there(tiny_folder):
    with pytest.raises(PolicyError, match="target_modules do not fit") as caught:
        adapted(tiny_folder, LoRA(target_modules=["query"])).build()
    assert "\n" not in str(caught.value)


def test_a_head_that_shares_its_weights(tiny_folder, tmp_path):
    import json

    folder = shutil.copytree(tiny_folder, tmp_path / "tied")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(PolicyError, match="shares its weights"):
        adapted(folder, LoRA(target_modules=["lm_head"])).build()


def test_peft_is_missing(tiny_folder, monkeypatch):
    monkeypatch.setattr(policy_module, "find_spec", lambda name: None)
    with pytest.raises(PolicyError, match=r"atmanrl\[lora\]"):
        adapted(tiny_folder).build()
