"""Parameters against the model's own count, FLOPs against PyTorch's counter."""

import pytest
import torch
from conftest import BLANK
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from atmanrl.models.policy import LoRA
from atmanrl.plan import flops
from atmanrl.plan.shape import shape_of

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8}


def tiny(**changes):
    config = AutoConfig.from_pretrained(BLANK)
    config.update({**TINY, **changes})
    if hasattr(config, "layer_types"):
        config.layer_types = None
    return config


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 2}])
def test_parameters_are_counted_once_each(changes):
    config = tiny(**changes)
    model, shape = AutoModelForCausalLM.from_config(config), shape_of(config)
    assert shape.parameters == shape.trainable_parameters == sum(p.numel() for p in model.parameters())
    assert shape.layer_parameters == sum(p.numel() for p in model.model.layers.parameters())
    assert shape.embedding_parameters == model.model.embed_tokens.weight.numel()
    assert shape.head_parameters == (0 if config.tie_word_embeddings else model.lm_head.weight.numel())
    assert shape.other_parameters == model.model.norm.weight.numel()
    assert shape.feed_forward_parameters == sum(p.numel() for p in model.model.layers[0].mlp.parameters())
    assert shape.kv_width == model.model.layers[0].self_attn.k_proj.out_features


def test_adapters_are_counted_apart():
    pytest.importorskip("peft")
    config = tiny()
    shape = shape_of(config, LoRA(r=4, target_modules=["q_proj", "v_proj"]))
    assert shape.trainable_parameters == shape.adapter_parameters == 3 * 2 * 4 * (32 + 32)
    assert shape.parameters == shape_of(config).parameters


def counted(model, ids, backward=False):
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids, use_cache=False).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def eager():
    config = tiny()
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager"), shape_of(config)


def matrices(shape):
    """The shape with its matrices alone: norms are not counted by PyTorch."""
    from dataclasses import replace

    return replace(shape, layer_parameters=shape.layer_parameters - 2 * shape.layers * shape.hidden)


def test_forward_flops_are_those_that_pytorch_counts(eager):
    model, shape = eager
    with torch.no_grad():
        found = counted(model, torch.ones(3, 20, dtype=torch.long))
    rope = 3 * 2 * 20 * (shape.head_dim // 2)  # positions times frequencies, an outer product
    expected = flops.forward_flops(matrices(shape), 60, 3 * flops.all_pairs(20), 60)
    assert found == pytest.approx(expected, abs=rope)


def test_update_flops_are_those_that_pytorch_counts(eager):
    model, shape = eager
    found = counted(model, torch.ones(3, 20, dtype=torch.long), backward=True)
    expected = flops.update_flops(matrices(shape), 60, 3 * flops.all_pairs(20), 60, checkpointing=False, frozen=False)
    assert found == pytest.approx(expected, rel=1e-3)
    more = flops.update_flops(matrices(shape), 60, 3 * flops.all_pairs(20), 60, checkpointing=True, frozen=False)
    layers = flops.matrix_flops(matrices(shape), 60) + flops.attention_flops(shape, 3 * flops.all_pairs(20))
    assert more - expected == pytest.approx(layers)


def test_probe_flops_are_those_that_pytorch_counts(tiny_policy):
    """One gradient of the probe itself, with lean attention that keeps its probabilities."""
    from atmanrl.plan.shape import shape_of
    from atmanrl.probe.attention import attention_hook
    from atmanrl.probe.module import frozen
    from atmanrl.probe.objective import Objective
    from atmanrl.probe.target import Target

    model = tiny_policy.model
    shape = matrices(shape_of(model.config))
    one = Target(tuple(range(3, 13)), tuple(range(5, 30)), (30, 31), (32, 33, 34))
    with frozen(model), attention_hook(model, "lean"):
        objective = Objective(model, [one], 10.0, tiny_policy.pad_id, 1024)
        values = torch.full((objective.entries.ragged.total,), -0.4, dtype=torch.float64)
        objective.evaluate(values, torch.tensor([0]))
        with FlopCounterMode(display=False) as counter:
            objective.evaluate(values, torch.tensor([0]))
    expected = flops.probe_gradient_flops(shape, 30, flops.all_pairs(30, 10), 3, recompute=False)
    # two layers alone: what the first needs no gradient for, and what the last leaves out, weighs a third here
    assert 0.6 < counter.get_total_flops() / expected < 1.0


def test_pairs_by_counting():
    n, m = 7, 4
    assert flops.pairs(n, m) == sum(1 for q in range(n) for k in range(m + n) if k <= m + q)
    assert flops.all_pairs(n, m) == n * (n + m)
