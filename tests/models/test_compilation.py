"""Compiled layers: the same values and gradients, in every kind of pass that meets them."""

import copy
import os
import shutil

import pytest
import torch
from conftest import BLANK
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from atmanrl.models import compilation
from atmanrl.models.compilation import compile_layers
from atmanrl.models.layers import checkpoint_layers
from atmanrl.models.logits import logits_at
from atmanrl.models.policy import Policy
from atmanrl.probe.attention import Bias, attention_bias, attention_hook
from atmanrl.probe.guard import check
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
INDUCTOR = pytest.param(
    "inductor",
    marks=[
        pytest.mark.skipif("ATMANRL_SLOW" not in os.environ, reason="compiles for half a minute: set ATMANRL_SLOW=1"),
        pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler"),
    ],
)


@pytest.fixture
def models():
    """A tiny Llama, and the same with compiled layers."""
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES), attn_implementation="sdpa").eval()
    return plain, copy.deepcopy(plain)


def learned(model, ids):
    """The logits at some positions, and the weights' gradients."""
    where = torch.zeros_like(ids, dtype=torch.bool)
    where[:, -3:] = True
    logits = logits_at(model, where, input_ids=ids, use_cache=False)
    logits.log_softmax(-1)[:, 5].sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


def probed(model, ids):
    """The gradient of an attention bias of a frozen model, through lean attention and a prompt's cache."""
    values = torch.zeros(len(ids), 4, 4, requires_grad=True)
    model.requires_grad_(False)
    with attention_hook(model, "lean"):
        with torch.no_grad():
            cache = model(input_ids=ids[:, :-4], use_cache=True).past_key_values
        begin = ids.shape[1] - 4
        with attention_bias(Bias(values, begin, begin)):
            logits = model(input_ids=ids[:, -4:], past_key_values=cache, use_cache=True).logits
        logits.log_softmax(-1)[..., 5].sum().backward()
    model.requires_grad_(True)
    return values.grad


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
def test_values_and_gradients_are_the_same(models, backend):
    plain, compiled = models
    assert compile_layers(compiled.model.layers, backend) == 6
    for shape in ((2, 9), (3, 7), (1, 12)):
        ids = torch.randint(64, shape, generator=torch.Generator().manual_seed(1))
        for model in models:
            model.zero_grad()
        (logits, gradients), (found, others) = learned(plain, ids), learned(compiled, ids)
        assert torch.allclose(logits, found, atol=1e-5)
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, others[name], atol=1e-5), name
        assert torch.allclose(probed(plain, ids), probed(compiled, ids), atol=1e-5)
        assert torch.equal(plain.generate(ids, max_new_tokens=4), compiled.generate(ids, max_new_tokens=4))


def test_checkpointed_layers_are_compiled_too(models):
    plain, compiled = models
    compile_layers(compiled.model.layers, "aot_eager")
    checkpoint_layers(compiled.model.layers[:-1])
    ids = torch.arange(20).view(2, 10)
    (logits, gradients), (found, others) = learned(plain, ids), learned(compiled, ids)
    assert torch.allclose(logits, found, atol=1e-5)
    assert all(torch.allclose(gradient, others[name], atol=1e-5) for name, gradient in gradients.items())


def test_few_compilations_serve_all_layers_and_shapes(models, monkeypatch):
    graphs = []
    monkeypatch.setattr(compilation, "_COMPILED", {})
    torch._dynamo.reset()

    def counting(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    compile_layers(models[1].model.layers, counting)
    for shape in ((2, 9), (3, 5), (7, 2)):
        with torch.no_grad():
            models[1](input_ids=torch.zeros(shape, dtype=torch.long))
    assert len(graphs) == 2  # the norm and the feed-forward network
    for shape in ((1, 5), (4, 1), (1, 9), (8, 1)):
        with torch.no_grad():
            models[1](input_ids=torch.zeros(shape, dtype=torch.long))
    assert len(graphs) <= 6


def test_a_copy_compiles_its_own_weights(models):
    plain, compiled = models
    compile_layers(compiled.model.layers, "aot_eager")
    twin = copy.deepcopy(compiled)
    with torch.no_grad():
        for weight in compiled.parameters():
            weight.zero_()
        ids = torch.arange(8)[None]
        assert torch.allclose(twin(ids).logits, plain(ids).logits, atol=1e-6)


def test_experts_are_left_as_they_are():
    config = MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)
    model = AutoModelForCausalLM.from_config(config)
    assert compile_layers(model.model.layers, "aot_eager") == 4
    assert not any("forward" in vars(layer.mlp) for layer in model.model.layers)


def test_the_policys_option_compiles_its_layers():
    torch.manual_seed(0)
    policy = Policy(str(BLANK), pretrained=False, compile="layers").build()
    assert all("forward" in vars(layer.mlp) for layer in policy.layers())
    assert policy.unbuilt().compile_option == "layers"
    plain = Policy(str(BLANK), pretrained=False).build()
    assert not any("forward" in vars(layer.mlp) for layer in plain.layers())


def test_a_compiled_model_can_be_probed(models):
    """The guard asks the gradient of one pass several times."""
    original, compiled = models
    compile_layers(compiled.model.layers, "aot_eager")
    losses = []
    for model in (original, compiled):
        with frozen(model), attention_hook(model, "lean"):
            check(model)
            objective = Objective(model, [Target((1, 2, 3), (4, 5, 6), (7,), (8, 9))], 10.0, 0, 1000)
            losses.append(objective.evaluate(objective.filled(-0.4)))
    assert torch.allclose(losses[0].gradient, losses[1].gradient, atol=1e-6) and losses[0].gradient.abs().max() > 1e-4
