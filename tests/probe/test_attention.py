"""The attention hook leaves no trace, adds its bias once, and refuses models that it cannot reach."""

from contextlib import ExitStack

import pytest
import torch
from architectures import ARCHITECTURES, COMMON, IGNORING
from torch import nn
from transformers import BertConfig, BertLMHeadModel, GenerationConfig, Mamba2Config, Mamba2ForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from atmanrl.probe import attention, guard
from atmanrl.probe.attention import (
    Bias,
    ProbeError,
    attention_bias,
    attention_hook,
    backends,
    choose_backend,
)
from atmanrl.probe.guard import check

IDS = torch.arange(6)[None] + 3
BIAS = Bias(-4 * torch.rand((1, 6, 6), generator=torch.Generator().manual_seed(0)), row=0, column=0)


@pytest.fixture
def llama():
    return ARCHITECTURES["Llama"].build("sdpa", "float32")


def state(model: nn.Module) -> list:
    """All that a hook or a check could leave behind."""
    found: list = [model.config._attn_implementation, dict(ALL_MASK_ATTENTION_FUNCTIONS), dict(attention._OPEN)]
    for part in model.modules():
        found += [part.training, len(part._forward_hooks), len(part._forward_pre_hooks)]
    return found + [(p.requires_grad, p.grad) for p in model.parameters()]


@torch.no_grad()
def logits(model, bias: Bias | None = BIAS) -> torch.Tensor:
    with ExitStack() as stack:
        if bias is not None:
            stack.enter_context(attention_bias(bias))
        return model(input_ids=IDS, use_cache=False).logits


def test_no_trace_is_left(llama):
    llama.train()
    llama.model.layers[0].mlp.eval()
    before, plain = state(llama), logits(llama)
    with attention_hook(llama, "eager"):
        check(llama)
        assert state(llama)[3:] == before[3:] and llama.config._attn_implementation == "eager"
        assert (logits(llama) - plain).abs().max() > 0.1
        torch.testing.assert_close(logits(llama, None), plain)
    assert state(llama) == before
    assert torch.equal(logits(llama), plain)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["body", "check", "nested"])
def test_no_trace_is_left_by_an_interruption(llama, error, where):
    def stop(*_):
        raise error

    llama.train()
    handle = llama.lm_head.register_forward_hook(stop) if where == "check" else None
    before = state(llama)
    with pytest.raises(error), attention_hook(llama, "eager"):
        if where == "check":
            check(llama)
        if where == "nested":
            with attention_hook(llama, "sdpa"), attention_hook(llama, "eager"):
                stop()
        stop()
    assert state(llama) == before
    if handle is not None:  # what was interrupted has not been passed
        assert llama not in guard._CHECKED


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_nested_hooks_add_the_bias_once(llama, backend):
    before, other = state(llama), ARCHITECTURES["Qwen2"].build(backend, "float32")
    with attention_hook(llama, backend):
        once = logits(llama)
        assert (once - logits(llama, None)).abs().max() > 0.1
        with attention_hook(other, backend), attention_hook(llama, backend):
            assert torch.equal(logits(llama), once)
        assert torch.equal(logits(llama), once)
    assert state(llama) == before


def test_hooks_may_close_in_any_order(llama):
    """As those of two threads do."""
    before, other = state(llama), ARCHITECTURES["Qwen2"].build("sdpa", "float32")
    plain = logits(llama)
    first, second = attention_hook(other, "sdpa"), attention_hook(llama, "sdpa")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (logits(llama) - plain).abs().max() > 0.1
    second.__exit__(None, None, None)
    assert state(llama) == before and torch.equal(logits(llama), plain)


def test_the_backend_is_one_that_the_model_has(llama):
    built = {name: a.build(a.backends[0], "float32") for name, a in ARCHITECTURES.items() if len(a.backends) == 1}
    assert {"Gemma2", "gpt-oss", "Bloom", "Falcon (rotary), sdpa"} < set(built)
    for name, model in built.items():
        (only,) = ARCHITECTURES[name].backends
        assert choose_backend(model) == only and backends(model) == (only,)
    assert choose_backend(llama) == "lean"


@pytest.mark.parametrize(("name", "backend", "advice"), [
    ("Gemma2", "sdpa", "Gemma2ForCausalLM cannot run with sdpa attention; choose attention: eager"),
    ("gpt-oss", "sdpa", "GptOssForCausalLM cannot run with sdpa attention; choose attention: eager"),
    ("Bloom", "sdpa", "BloomForCausalLM cannot run with sdpa attention; choose attention: eager"),
    ("Falcon (rotary), sdpa", "eager", "FalconForCausalLM cannot run with eager attention; choose attention: sdpa"),
    ("Llama", "flash_attention_2", "'flash_attention_2' takes no bias with a gradient; choose one of lean, eager, sdpa"),
    ("Llama", "nonsense", "'nonsense' takes no bias with a gradient; choose one of lean, eager, sdpa"),
])  # fmt: skip
def test_a_backend_that_the_model_has_not_is_refused(name, backend, advice):
    model = ARCHITECTURES[name].build(ARCHITECTURES[name].backends[0], "float32")
    before = state(model)
    with pytest.raises(ProbeError, match=advice), attention_hook(model, backend):
        pass
    assert state(model) == before


def test_a_model_that_cannot_leave_flash_attention_is_refused():
    model = ARCHITECTURES["Falcon (rotary), sdpa"].build("sdpa", "float32")
    model.config._attn_implementation_internal = "flash_attention_2"
    advice = "load it with attn_implementation: eager to probe it"
    with pytest.raises(ProbeError, match=f"FalconForCausalLM cannot leave flash_attention_2 .*{advice}"):
        choose_backend(model)
    with pytest.raises(ProbeError, match=advice), attention_hook(model, "sdpa"):
        pass


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("name", IGNORING)
def test_a_model_that_ignores_the_bias_is_refused(name, trainable):
    model = IGNORING[name].build(IGNORING[name].backends[0], "float32").requires_grad_(trainable)
    with attention_hook(model, choose_backend(model)):
        for _ in range(2):  # a refusal is never taken for a pass
            with pytest.raises(ProbeError, match=f"^{type(model).__name__} ignores the attention bias"):
                check(model)


def test_mamba2_is_refused():
    model = Mamba2ForCausalLM(Mamba2Config(**COMMON | {"num_heads": 8, "state_size": 4, "n_groups": 1}))
    with attention_hook(model, "eager"), pytest.raises(ProbeError, match="Mamba2ForCausalLM ignores"):
        check(model)


def test_models_that_are_read_in_another_order_are_refused(llama):
    bert = BertLMHeadModel(BertConfig(**COMMON, is_decoder=False))
    with attention_hook(bert, "eager"), pytest.raises(ProbeError, match="BertLMHeadModel attends to later tokens"):
        check(bert)
    layer = llama.model.layers[-1]
    layer.register_forward_hook(lambda *found: found[-1] + nn.functional.pad(found[-1], (0, 0, 1, -1)))
    with attention_hook(llama, "eager"), pytest.raises(ProbeError, match="LlamaForCausalLM mixes positions after its"):
        check(llama)


def test_a_layer_that_ignores_the_bias_is_found(llama):
    """Its output has a gradient all the same, through what the layers before it made."""
    layer = llama.model.layers[1].self_attn
    forward = layer.forward
    layer.forward = lambda *a, attention_mask, **k: forward(*a, attention_mask=attention_mask.detach(), **k)
    message = r"LlamaForCausalLM ignores the attention bias in 1 of its 2 layers \(the first: LlamaDecoderLayer 1\)"
    with attention_hook(llama, "eager"), pytest.raises(ProbeError, match=message):
        check(llama)


class Quantised(nn.Module):
    """A linear layer with int8 weights, whose kernel knows (bitsandbytes) or does not know its inputs' gradient."""

    def __init__(self, linear: nn.Linear, kernel: str) -> None:
        super().__init__()
        self.kernel, self.step = kernel, float(linear.weight.abs().max()) / 127
        self.register_buffer("qweight", (linear.weight / self.step).round().to(torch.int8))

    def forward(self, x):
        if self.kernel == "raises":
            return Inference.apply(x, self.qweight * self.step)
        with torch.set_grad_enabled(self.kernel == "differentiable"):
            return x @ (self.qweight * self.step).T


class Inference(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        return x @ weight.T

    @staticmethod
    def backward(ctx, grad):
        raise NotImplementedError("no backward for this kernel")


def quantised(llama, kernel: str):
    for layer in llama.model.layers:
        layer.mlp.up_proj = Quantised(layer.mlp.up_proj, kernel)
    llama.config.quantization_config = GenerationConfig(quant_method="int8")  # any object with that attribute
    return llama.requires_grad_(False)


def test_quantised_weights_are_fine(llama):
    with attention_hook(quantised(llama, "differentiable"), "eager"):
        check(llama)


@pytest.mark.parametrize(("kernel", "where"), [("detached", "Quantised"), ("raises", "its layers")])
def test_kernels_without_a_gradient_are_refused(llama, kernel, where):
    """Around a detached kernel the residual stream still carries a gradient: a wrong one."""
    message = rf"LlamaForCausalLM \(int8 quantisation\) carries no gradient through {where}: load the model unquantised"
    with attention_hook(quantised(llama, kernel), "eager"), pytest.raises(ProbeError, match=message):
        check(llama)


def test_a_model_is_checked_once_for_each_backend(llama):
    passes = []
    llama.model.register_forward_pre_hook(lambda *_: passes.append(1))
    for backend in ("eager", "sdpa", "eager", "sdpa"):
        with attention_hook(llama, backend), torch.inference_mode():
            check(llama)
    assert len(passes) == 2 * 4
