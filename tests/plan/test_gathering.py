"""The plan of a run that gathers weights layer by layer: less memory, and more traffic for every pass."""

from dataclasses import replace

import pytest
from transformers import LlamaConfig

from atmanrl.distributed import FSDP2Strategy
from atmanrl.plan.estimate import plan
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import shape_of

SHAPE = shape_of(
    LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8, vocab_size=1000)
)
RUN = RunSettings(
    "random", queries=2, group=2, max_new_tokens=64, num_iterations=1, minibatch_queries=2, micro_batch_tokens=1024,
    weight_bytes=2, compute_bytes=2, sharded=True, probes=(ProbeSettings(10.0, 64, 5),),
)  # fmt: skip
DEVICES = Hardware(4, 1e9, 1e12, 1e12, link_bytes_per_second=1e6, launch_seconds=0.0)
LENGTHS = Lengths(prompt=16.0, completion=64.0)


def planned(**changes):
    return plan(SHAPE, replace(RUN, **changes), DEVICES, LENGTHS)


def test_two_layers_and_what_is_outside_of_them_are_held_and_no_copy():
    model, layer = planned(), planned(by_layer=True)
    assert model.memory_by_part["copy of the weights"] == 2 * SHAPE.parameters
    outside = 2 * (SHAPE.embedding_parameters + SHAPE.head_parameters)
    assert layer.memory_by_part["copy of the weights"] == 2 * 2 * SHAPE.layer_parameters / 8 + outside
    saved = model.memory_by_part["copy of the weights"] - layer.memory_by_part["copy of the weights"]
    for phase in ("sampling", "probing"):
        assert model.peak_by_phase[phase] - layer.peak_by_phase[phase] == pytest.approx(saved)


def test_every_pass_gathers_all_layers():
    """Over a link that is so slow that nothing else counts."""
    model, layer = planned(), planned(by_layer=True)
    once = 2 * SHAPE.layer_parameters / 1e6
    copy = 2 * SHAPE.parameters / 1e6
    # 4 rollouts of 64 tokens in passes of 64 tokens, 10 gradients each, forwards and backwards
    assert layer.seconds_by_phase["probing"] - model.seconds_by_phase["probing"] == pytest.approx(80 * once - copy)
    assert layer.seconds_by_phase["sampling"] - model.seconds_by_phase["sampling"] == pytest.approx(65 * once - copy)
    assert layer.seconds_by_phase["update"] == model.seconds_by_phase["update"]
    rescored = [planned(by_layer=by_layer, rescore=True).seconds_by_phase["update"] for by_layer in (False, True)]
    assert rescored[1] - rescored[0] == pytest.approx(once)


def test_where_a_copy_has_no_room_it_is_advised():
    from atmanrl.plan.estimate import advice

    tight = replace(DEVICES, memory_bytes=50e6)
    hints = advice(plan(SHAPE, replace(RUN, moments=0.0), tight, LENGTHS))
    assert "gather one layer at a time: trainer.strategy.gather: layer" in hints


def test_the_strategy_says_how_it_gathers():
    assert FSDP2Strategy().gather == "model" and FSDP2Strategy(gather="layer").gather == "layer"
