"""Two whole updates, sampling to optimizer step, on policies other than Llama."""

import math
from pathlib import Path

import pytest
import torch
from lightning import Trainer, seed_everything
from tiny_runs import Feed
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, MistralConfig, Qwen2Config, Qwen3Config

from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import AdaptiveSolver
from atmanrl.rewards import OutcomeReward, SaliencyReward

BLANK = Path(__file__).parents[2] / "experiments/laptop/blank"
WINDOW = 8  # shorter than every prompt with its rollout
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "initializer_range": 0.1}  # fmt: skip
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
CONFIGS = {
    "Qwen2": (Qwen2Config, {}),
    "Qwen3": (Qwen3Config, {}),
    "Mistral": (MistralConfig, {"sliding_window": WINDOW}),
    "Gemma3": (Gemma3TextConfig, {**MIXED, "query_pre_attn_scalar": 8}),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tmp_path):
    """A tiny random policy with the laptop tokenizer, in Hugging Face format."""
    kind, options = CONFIGS[request.param]
    tokenizer = AutoTokenizer.from_pretrained(BLANK)
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    seed_everything(0, verbose=False)
    model = AutoModelForCausalLM.from_config(kind(**SHAPE | options | ends, vocab_size=len(tokenizer)))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_updates(folder, precision):
    feed = Feed(written=True)
    rewards = {"outcome": OutcomeReward(), "saliency": SaliencyReward(probe=MaskProbe(solver=AdaptiveSolver(steps=20)))}
    policy = Policy(str(folder))
    module = GRPOModule(policy, rewards=rewards, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), rescore=True)
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_steps=2,
                      precision=precision, enable_progress_bar=False, enable_model_summary=False,
                      limit_val_batches=0)  # fmt: skip
    trainer.fit(module, feed)
    start = Policy(str(folder)).build().model.state_dict()
    assert trainer.global_step == len(feed.given) == 2
    assert all(len({len(r.prompt_ids) for r in batch.rollouts}) > 1 for batch in feed.given)
    moved = {name for name, weight in policy.model.state_dict().items() if not torch.equal(weight, start[name])}
    assert any("q_proj" in name for name in moved) and any("mlp" in name for name in moved)
    assert all(weight.isfinite().all() for weight in policy.model.parameters())
    assert all(weight.requires_grad for weight in policy.model.parameters())
    assert policy.model.config._attn_implementation == "sdpa"
    probed = [r for batch in feed.given for r in batch.rollouts if not math.isnan(r.rewards["saliency"])]
    assert len(probed) == 6 and all(len(r.prompt_ids) + len(r.completion.ids) > WINDOW for r in probed)
    assert len({r.rewards["saliency"] for r in probed}) > 1
    assert all(-1 < r.rewards["saliency"] < 1 and len(r.saliency) == r.parts.cot_length for r in probed)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert all(math.isfinite(value) for value in logged.values())
    assert logged["grad_norm"] > 0 and logged["probe/gradients"] > 1
    rounding = 0 if precision == "32-true" else 0.02  # in bf16, of a loss that 20 steps change by thousandths
    assert logged["probe/loss_final"] < logged["probe/loss_initial"] + rounding
