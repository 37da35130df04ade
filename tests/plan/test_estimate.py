"""Plans of the paper's model, with numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
from test_shape_and_flops import tiny

from atmanrl.plan.estimate import plan
from atmanrl.plan.flops import pairs, update_flops
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape, shape_of
from atmanrl.plan.times import update_operations
from atmanrl.plan.units import parse_bytes

# the 3B of the paper: 28 layers, 3072 wide, 24 heads of which 8 have keys, 128k words, head tied
PAPER = ModelShape(
    name="Llama 3B", layers=28, hidden=3072, heads=24, kv_heads=8, head_dim=128, intermediate=8192, vocabulary=128256,
    embedding_parameters=394_002_432, layer_parameters=2_818_744_320, head_parameters=0, other_parameters=3072,
    trainable_parameters=3_212_749_824,
)  # fmt: skip


def paper(**changes):
    settings = {
        "path": "3B", "queries": 8, "group": 8, "max_new_tokens": 1024, "num_iterations": 2, "minibatch_queries": 2,
        "micro_batch_tokens": 2048, "compute_bytes": 2, "max_epochs": 5, "problems": 7373, "rescore": True,
        "probes": (ProbeSettings(gradients=201, batch_tokens=4096, mask_copies=5),),
    }  # fmt: skip
    return RunSettings(**{**settings, **changes})


def on(devices, memory="80GB"):
    return Hardware(devices, parse_bytes(memory, ""), 989e12, 3.35e12)


def test_the_papers_model_by_hand():
    """fp32 weights, two moments and DDP's buckets of 3.2 billion weights; 7373 // (8 x 4) updates in an epoch."""
    planned = plan(PAPER, paper(), on(4), Lengths())
    assert planned.resident == 16 * PAPER.parameters
    assert planned.updates == 5 * (7373 // 32)
    assert planned.tokens_per_update == 4 * 64 * (160 + 250)
    assert planned.gpu_hours == pytest.approx(4 * planned.updates * planned.update_seconds / 3600)
    assert planned.seconds_by_phase["probing"] > planned.seconds_by_phase["update"]


def test_the_papers_model_on_one_gpu():
    """28 layers of 40 kernels and 49 more, 20 microseconds each, for every token of the longest of 64 completions."""
    planned = plan(PAPER, paper(), on(1), Lengths())
    assert planned.resident == 12 * PAPER.parameters
    token = (28 * 40 + 49) * 20e-6
    assert planned.seconds_by_phase["sampling"] == pytest.approx(token * 250 * (1 + 0.39 * math.log(64)), rel=0.01)
    assert 15 < planned.seconds_by_phase["sampling"] < 30
    longer = plan(PAPER, paper(), on(1), Lengths(completion=600))  # none is longer than data.max_new_tokens
    assert longer.seconds_by_phase["sampling"] == pytest.approx(token * 1024, rel=0.01)


def test_gradients_and_the_copy_of_the_weights_are_never_there_together():
    planned = plan(PAPER, paper(), on(1), Lengths())
    parts, peaks = planned.memory_by_part, planned.peak_by_phase
    assert parts["gradients"] == 4 * PAPER.parameters and parts["copy of the weights"] == 2 * PAPER.parameters
    cache = (
        64 * (160 + 1024 + 64) * 28 * 2 * 1024 * 2
    )  # rollouts, positions, layers, keys and values, 8 heads of 128, bf16
    assert parts["caches of sampling"] == cache
    rest = planned.resident + parts["copy of the weights"]
    assert peaks["sampling"] == rest + cache + parts["logits of sampling"]
    assert peaks["probing"] == rest + parts["masks and their solver"] + parts["activations of the probe"]
    assert peaks["update"] > planned.resident + parts["gradients"]
    exact = plan(PAPER, paper(compute_bytes=4), on(1), Lengths()).memory_by_part
    assert exact["copy of the weights"] == 0 and exact["caches of sampling"] == 2 * cache


def test_what_changes_memory_and_time():
    alone = plan(PAPER, paper(), on(48), Lengths())
    shared = plan(PAPER, paper(sharded=True), on(48), Lengths())
    assert shared.resident == pytest.approx((alone.resident - alone.memory_by_part["buckets of DDP"]) / 48)
    assert shared.seconds_by_phase["update"] > alone.seconds_by_phase["update"]
    saving = plan(PAPER, paper(checkpointing=True), on(48), Lengths())
    assert saving.peak_by_phase["update"] < alone.peak_by_phase["update"]
    assert saving.seconds_by_phase["update"] > alone.seconds_by_phase["update"]
    longer = plan(PAPER, paper(), on(48), Lengths(completion=500))
    assert all(longer.seconds_by_phase[phase] > alone.seconds_by_phase[phase] for phase in alone.seconds_by_phase)


def test_what_does_not_fit_gets_advice_that_helps():
    small = plan(PAPER, paper(), on(8, "40GB"), Lengths())
    assert not small.fits
    hints = small.as_dict()["advice"]
    assert any("FSDP2Strategy" in hint for hint in hints) and any("lora" in hint for hint in hints)
    assert plan(PAPER, paper(sharded=True), on(8, "40GB"), Lengths()).peak < small.peak


def test_old_logprobs_take_one_more_forward_pass():
    """Two passes of three forwards each, and one more."""
    without, again = (update_operations(PAPER, paper(rescore=rescore), Lengths()) for rescore in (False, True))
    assert again == pytest.approx(without * 7 / 6)


def test_shared_prompts_are_read_once_for_their_group():
    alone, shared = (update_operations(PAPER, paper(share_prompts=s, rescore=False), Lengths()) for s in (False, True))
    rows = 64 * (160 + 250)
    assert alone == 2 * update_flops(PAPER, rows, 64 * pairs(410), 64 * 250, checkpointing=False, frozen=False)
    tokens, seen = 8 * 160 + 64 * 250, 8 * pairs(160) + 64 * pairs(250, 160)
    assert shared == 2 * update_flops(PAPER, tokens, seen, 64 * 250, checkpointing=False, frozen=False)


def test_every_saliency_reward_probes():
    one, two = (plan(PAPER, paper(probes=paper().probes * n), on(1), Lengths()) for n in (1, 2))
    assert two.seconds_by_phase["probing"] == pytest.approx(2 * one.seconds_by_phase["probing"], rel=0.01)
    assert two.peak_by_phase == one.peak_by_phase  # one after the other


def test_a_share_of_the_groups_takes_its_share_of_time_and_masks():
    whole = paper().probes[0]
    all_of_them, half = (plan(PAPER, paper(probes=(replace(whole, share=s),)), on(1), Lengths()) for s in (1.0, 0.5))
    assert half.seconds_by_phase["probing"] == pytest.approx(all_of_them.seconds_by_phase["probing"] / 2, rel=0.02)
    name = "masks and their solver"
    assert half.memory_by_part[name] == all_of_them.memory_by_part[name] / 2


def test_an_evaluation_has_its_share_of_an_update():
    evaluation = {"val_problems": 100, "eval_samples": 4, "eval_queries": 16}
    none, often, seldom, probing = (
        plan(PAPER, paper(**evaluation, **more), on(1), Lengths()).seconds_by_phase.get("evaluation")
        for more in (
            {}, {"val_interval": 50}, {"val_interval": 100}, {"val_interval": 50, "evaluate_all_rewards": True},
        )
    )  # fmt: skip
    assert none is None and often == 2 * seldom and probing > 2 * often


@pytest.mark.parametrize(
    ("interval", "epochs", "updates"), [(0, 1, None), (25, 1, 25), (1.0, 1, 921), (0.25, 2, 2 * 230)]
)
def test_updates_between_evaluations(interval, epochs, updates):
    """7373 // 8 updates are an epoch on one device; a number that is no integer is a share of it."""
    assert paper(val_interval=interval, val_epochs=epochs).val_every(devices=1) == updates
    assert paper(val_interval=0.5, problems=None).val_every(devices=1) is None


def test_the_shape_in_this_file_is_the_models(tmp_path):
    config = tiny(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, head_dim=128, num_attention_heads=24,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    assert shape_of(config).parameters == PAPER.parameters == 3_212_749_824
