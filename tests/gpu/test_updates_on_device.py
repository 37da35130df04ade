"""Whole updates on the device by a Trainer: precisions, strategies, adapters, checkpoints, determinism."""

import logging
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from lightning import Callback, Trainer

from atmanrl.distributed import FSDP2Strategy
from atmanrl.errors import UserError
from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import LoRA, Policy
from atmanrl.probe import MaskProbe, PaperSolver
from atmanrl.rewards import Reward, SaliencyReward
from atmanrl.rollouts import Completion, RolloutDataModule, split
from atmanrl.tasks import WordProblems

pytestmark = pytest.mark.gpu


class Lottery(Reward):
    """Luck, but the same luck for the same tokens."""

    def __call__(self, batch, policy):
        return torch.tensor([sum(r.completion.ids) % 7 / 7 for r in batch.rollouts])


class Feed(RolloutDataModule):
    """Samples, and puts answers that parse in the place of every other completion: a random policy writes none."""

    def __init__(self) -> None:
        task = WordProblems(train_size=10, test_size=3, instruction="")
        super().__init__(
            task, queries_per_device=3, group_size=2, max_new_tokens=6, val_problems=4, eval_samples=2, eval_queries=3
        )

    def answer(self, policy, *args):
        own = self.trainer.lightning_module.weights
        self.kinds = {weight.dtype for weight in policy.model.parameters()}
        self.devices = {weight.device.type for weight in policy.model.parameters()}
        self.gradients = sum(weight.grad is not None for weight in own)
        batch = super().answer(policy, *args)
        for i, rollout in enumerate(batch.rollouts):
            if i % 2:
                ids = [*policy.tokenizer(f"so {i} + 4 = {i + 4}. ##### {i}").input_ids, policy.eos_ids[0]]
                rollout.completion = Completion(ids, [-6.6] * len(ids), True)
                rollout.parts, rollout.correct = split(policy.tokenizer, ids), i % 4 == 1
        return batch


class Saving(Callback):
    """Saves the first update."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == 1:
            trainer.save_checkpoint(self.path)


class Fit:
    """Some updates of the tiny policy with a saliency reward.

    Attributes:
        start, end: all weights before and after, in one vector on the CPU.
        logged: figures of the last update.
    """

    def __init__(
        self, folder, device: torch.device, updates: int = 1, ckpt_path=None, policy=None, trainer=None, **options
    ):
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        self.policy = Policy(str(folder), **(policy or {})).build()
        self.feed = Feed()
        rewards = {
            "lottery": Lottery(),
            "saliency": SaliencyReward(probe=MaskProbe(solver=PaperSolver(steps=3, lr=1e-2))),
        }
        self.module = GRPOModule(
            self.policy, rewards, lambda p: torch.optim.AdamW(p, lr=1e-2), evaluate_all_rewards=True, **options
        )  # fmt: skip
        self.module.weights = list(self.policy.parameters())
        where = (
            {"accelerator": "gpu", "devices": [device.index or 0]} if device.type == "cuda" else {"accelerator": "cpu"}
        )
        quiet = {
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        self.trainer = Trainer(
            **(where | quiet | {"max_steps": updates, "limit_val_batches": 0} | (trainer or {})),
            default_root_dir=folder,
        )
        self.start = self.weights()
        try:
            self.trainer.fit(self.module, self.feed, ckpt_path=ckpt_path)
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
        self.end = self.weights()
        self.logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}

    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().cpu().float().flatten() for p in self.policy.parameters()])


@pytest.mark.parametrize("strategy", ["auto", "fsdp2"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_an_update_learns_with_finite_figures(tiny_folder, device, precision, strategy):
    found = Fit(tiny_folder, device, trainer={"precision": precision, "strategy": strategy})
    assert found.end.isfinite().all() and (found.end != found.start).any()
    assert all(torch.isfinite(torch.tensor(found.logged[name])) for name in ("loss", "grad_norm", "entropy"))
    assert found.logged["rewards/saliency/abstained"] < 1
    assert found.feed.devices == {device.type}


def test_mixed_precision_samples_a_copy_in_bf16_while_no_gradient_is_held(tiny_folder, device):
    found = Fit(tiny_folder, device, updates=2, trainer={"precision": "bf16-mixed"})
    assert found.feed.kinds == {torch.bfloat16} and found.feed.gradients == 0
    assert {weight.dtype for weight in found.policy.parameters()} == {torch.float32}


def test_fp16_is_refused_or_scaled_but_never_clipped_before_it_is_unscaled(tiny_folder, device):
    try:
        found = Fit(tiny_folder, device, trainer={"precision": "16-mixed"})
    except UserError as error:
        assert "16-mixed" in str(error)
    else:
        assert found.logged["grad_norm"] < 1e3


def test_a_deterministic_trainer_updates_twice_alike(tiny_folder, device, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        ends = [Fit(tiny_folder, device, trainer={"deterministic": True}).end for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*ends)


def test_activation_checkpointing_does_not_change_an_update(tiny_folder, device):
    plain, again = (
        Fit(tiny_folder, device, policy={"activation_checkpointing": on}, trainer={"precision": "bf16-mixed"}).end
        for on in (False, True)
    )
    assert (plain - again).abs().mean() < 1e-4  # AdamW makes whole steps of the noise in gradients near 0


def test_adapters_learn_on_a_base_in_bf16(tiny_folder, device):
    if find_spec("peft") is None:
        pytest.skip("peft is not installed")
    found = Fit(tiny_folder, device, policy={"dtype": "bfloat16", "lora": LoRA(r=2, alpha=8)})
    assert found.end.isfinite().all() and (found.end != found.start).any()
    assert {p.dtype for p in found.policy.parameters() if p.requires_grad} == {torch.float32}


def test_validation_in_inference_mode_gives_saliency_rewards(tiny_folder, device):
    found = Fit(
        tiny_folder, device, trainer={"precision": "bf16-mixed", "limit_val_batches": 1.0, "inference_mode": True}
    )
    (figures,) = found.trainer.validate(found.module, found.feed, verbose=False)
    assert any("saliency" in name for name in figures)


def test_a_run_of_fsdp2_on_one_device_goes_on_from_its_checkpoint(tiny_folder, device, tmp_path):
    def options(**more):
        return {"precision": "bf16-mixed", "strategy": FSDP2Strategy(), **more}

    whole = Fit(tiny_folder, device, 2, trainer=options(callbacks=[Saving(tmp_path / "first.ckpt")]))
    second = Fit(tiny_folder, device, 2, ckpt_path=tmp_path / "first.ckpt", trainer=options())
    assert second.trainer.global_step == 2
    assert (second.end - whole.end).abs().mean() < 1e-4


def test_cudnn_attention_is_off_in_a_run(tiny_folder, device):
    torch.backends.cuda.enable_cudnn_sdp(True)
    Fit(tiny_folder, device)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
