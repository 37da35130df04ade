"""Formulas of memory against tensors that are there."""

from dataclasses import replace

import pytest
import torch
from test_shape_and_flops import tiny
from transformers import AutoModelForCausalLM

from atmanrl.distributed import inference_copy
from atmanrl.models.logits import logits_at
from atmanrl.models.policy import LoRA, Policy
from atmanrl.models.token_scores import LOGITS_AT_ONCE
from atmanrl.plan import memory
from atmanrl.plan.shape import shape_of
from atmanrl.probe.mask import Entries
from atmanrl.rollouts import HFSampler, SamplingOptions, static_decoding


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_config(tiny(), attn_implementation="sdpa").eval()


def kept(work, model):
    """Bytes of different tensors kept for the backward pass, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = work()
    del result
    return sum(size for size, _ in found.values())


def test_weights_gradients_and_optimizer_are_those_of_a_step(model):
    shape = shape_of(model.config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
    optimizer.step()
    moments = sum(s.nbytes for state in optimizer.state.values() for s in state.values() if s.numel() > 1)
    assert memory.weights_bytes(shape, 4, 1) == sum(p.nbytes for p in model.parameters())
    assert memory.gradients_bytes(shape, 4, 1) == sum(p.grad.nbytes for p in model.parameters())
    assert memory.optimizer_bytes(shape, 4, 1, moments=2) == moments
    assert memory.weights_bytes(shape, 4, 3) == pytest.approx(memory.weights_bytes(shape, 4, 1) / 3)
    optimizer.zero_grad()


def test_activations_of_the_update_are_those_that_are_kept(model):
    """From the difference of two lengths, so that what does not grow with it drops out."""
    shape = shape_of(model.config)

    def update(tokens):
        return kept(lambda: model.model(torch.ones(2, tokens, dtype=torch.long)).last_hidden_state.sum(), model)

    found = (update(96) - update(32)) / (2 * 64)
    assert memory.update_activation_bytes(shape, 1, 4, checkpointing=False) == pytest.approx(found, rel=0.1)


def test_activations_of_the_probe_are_fewer(model):
    shape = shape_of(model.config)
    frozen = memory.probe_layer_activation_bytes(shape, 4)
    assert 0.4 < frozen / memory.layer_activation_bytes(shape, 4) < 0.9


def test_a_cache_has_its_bytes(model):
    out = model(torch.ones(3, 11, dtype=torch.long), use_cache=True)
    found = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    assert memory.cache_bytes(shape_of(model.config), 3, 11, 4) == found


@pytest.mark.parametrize(("context", "completion"), [(1024, 20), (1024, 300), (50, 20)])
def test_a_static_cache_has_the_bytes_of_the_samplers_buffers(monkeypatch, tiny_folder, context, completion):
    policy = Policy(str(tiny_folder)).build()
    policy.model.config.max_position_embeddings = context
    policy.eos_ids = ()  # nothing ends, and so no row leaves
    found = []
    real = static_decoding.decode_step

    def watched(model, state, options):
        found.append(sum(layer.keys.nbytes + layer.values.nbytes for layer in state.cache.layers))
        real(model, state, options)

    sampler = HFSampler(cache="static")
    sampler._step = watched
    sampler.sample(policy, [[1] * 8, [1] * 30], torch.rand(2, 5, completion), SamplingOptions(completion))
    shape = shape_of(policy.model.config)
    assert memory.sampling_cache_bytes(shape, 10, 30 + completion, 4, static=True) == max(found)
    assert shape.context == context
    assert memory.sampling_cache_bytes(shape, 10, 30, 4, static=False) < memory.cache_bytes(shape, 10, 100, 4)


@pytest.mark.parametrize(("dtype", "lora"), [("float32", None), ("float32", LoRA(r=2)), ("bfloat16", LoRA(r=2))])
def test_the_copy_of_the_weights_has_its_bytes(tiny_folder, dtype, lora):
    if lora is not None:
        pytest.importorskip("peft")
    policy = Policy(str(tiny_folder), dtype=dtype, lora=lora).build()
    policy.computed_in = torch.bfloat16
    own = {p.data_ptr() for p in policy.parameters()}
    with inference_copy(policy):
        found = sum(p.nbytes for p in policy.parameters() if p.data_ptr() not in own)
    assert memory.copy_bytes(shape_of(policy.model.config, lora), 4 if dtype == "float32" else 2, 2) == found
    assert memory.copy_bytes(shape_of(policy.model.config, lora), 4, 4) == 0


def test_masks_have_their_entries():
    entries = Entries(torch.tensor([30]), torch.tensor([25]))
    assert memory.mask_entries(25, 5) == entries.ragged.total
    assert memory.mask_bytes(entries.ragged.total, 1, 1) == 4 * entries.ragged.total


def test_an_update_holds_some_logits_at_a_time(model):
    shape = replace(shape_of(model.config), vocabulary=128256)
    assert LOGITS_AT_ONCE // 128256 == 523
    assert memory.scored_logits_bytes(shape, 400, 2) == 400 * 128256 * (2 + 4 + 4)
    assert memory.scored_logits_bytes(shape, 16384, 2) == 523 * 128256 * (2 + 4 + 4)
    assert memory.scored_logits_bytes(shape, 400, 4) == 400 * 128256 * (4 + 4)


def test_logits_have_their_bytes(model):
    where = torch.ones(2, 5, dtype=torch.bool)
    logits = logits_at(model, where, input_ids=torch.ones(2, 5, dtype=torch.long))
    assert memory.logits_bytes(shape_of(model.config), 10, 4, 0) == logits.nbytes


def test_checkpointing_and_sharding_save():
    shape = shape_of(tiny(num_hidden_layers=12))
    assert memory.update_activation_bytes(shape, 10, 2, True) < memory.update_activation_bytes(shape, 10, 2, False) / 3
    assert memory.gathered_layers_bytes(shape, 2) < memory.gathered_bytes(shape, 2)
