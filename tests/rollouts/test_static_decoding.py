"""A static cache gives the tokens of the dynamic one: whatever the prompts, ends, options, weights and models."""

import logging
import os
import shutil

import pytest
import torch
from conftest import BLANK
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    Lfm2Config,
    LlamaConfig,
    MptConfig,
    Qwen3Config,
)

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rollouts import HFSampler, SamplingOptions, static_decoding
from atmanrl.rollouts.seeds import uniforms

UNEQUAL = [[1, 20, 30, 40], [1, 25], [1, *range(50, 61)]]
EQUAL = [[1, 20, 30], [1, 25, 26], [1, 50, 51]]
GROUP, LIMIT = 4, 40
SIZES = {
    "vocab_size": 768, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
WINDOWS = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
MODELS = {
    "llama": LlamaConfig(**SIZES),
    "shallow": LlamaConfig(**SIZES | {"num_hidden_layers": 1}),
    "qwen3": Qwen3Config(**SIZES),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOWS, query_pre_attn_scalar=8),
    "lfm2": Lfm2Config(**SIZES, layer_types=["conv", "full_attention"], block_multiple_of=8),
    # room for the longest prompt and LIMIT tokens, and less than a multiple of COLUMNS
    "mpt": MptConfig(vocab_size=768, d_model=32, n_heads=4, n_layers=2, max_seq_len=53, pad_token_id=0),
}


def numbers(queries: int, group: int = GROUP, limit: int = LIMIT) -> torch.Tensor:
    return torch.stack([
        torch.stack([uniforms(3, "train", 1, q, s, limit) for s in range(group)]) for q in range(queries)
    ])  # fmt: skip


def tiny(name: str = "llama", dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Policy:
    """Weights so strong that every token depends on what is attended to; one token in 40 ends a completion."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MODELS[name], attn_implementation=attention)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.normal_(0, 1.5 / weight.shape[-1] ** 0.5)
    policy = Policy.around(model.to(dtype).eval(), AutoTokenizer.from_pretrained(BLANK))
    policy.eos_ids = tuple(range(2, 768, 40))
    return policy


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    """Rows leave and buffers grow several times within a short completion."""
    monkeypatch.setattr(static_decoding, "CHUNK", 5)
    monkeypatch.setattr(static_decoding, "COLUMNS", 16)
    monkeypatch.setattr(static_decoding, "FEWEST_ROWS", 2)


def both(policy, prompts=UNEQUAL, sampler=None, uniform=None, **options):
    """Completions with the dynamic and with the static cache."""
    uniform = numbers(len(prompts)) if uniform is None else uniform
    wanted = SamplingOptions(max_new_tokens=uniform.shape[2], **options)
    samplers = (HFSampler(), sampler or HFSampler(cache="static"))
    return [sum(each.sample(policy, prompts, uniform, wanted), []) for each in samplers]


def same(dynamic, static) -> None:
    for left, right in zip(dynamic, static, strict=True):
        assert left.ids == right.ids and left.finished == right.finished
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("prompts", [UNEQUAL, EQUAL], ids=["unequal", "equal"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_the_tokens_are_those_of_the_dynamic_cache(name, prompts, attention):
    dynamic, static = both(tiny(name, attention=attention), prompts)
    same(dynamic, static)
    lengths = [len(c.ids) for c in dynamic]
    assert len(set(lengths)) > 3 and max(lengths) > 30 and {c.finished for c in dynamic} == {True, False}


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.6, "top_k": 20}, {"top_p": 0.8}, {"min_p": 0.1, "temperature": 1.4}],
    ids=lambda options: "-".join(options),
)
def test_truncation_and_temperature_are_the_same(options):
    same(*both(tiny(), **options))


@pytest.mark.parametrize("group", [1, 3, 8])
def test_any_group_and_any_end_are_the_same(group):
    policy = tiny()
    same(*both(policy, uniform=numbers(3, group, 23)))
    same(*both(policy, uniform=numbers(3, group, 1)))
    policy.eos_ids = tuple(range(768))  # every completion ends with its first token
    dynamic, static = both(policy, uniform=numbers(3, group))
    same(dynamic, static)
    assert all(len(c.ids) == 1 and c.finished for c in static)


def test_stop_strings_cut_at_the_token_that_completes_them():
    policy = tiny()
    free = both(policy)[0]
    texts = [policy.tokenizer.decode(c.ids, skip_special_tokens=True) for c in free]
    longest = max(texts, key=len)
    stops = tuple(longest[at : at + 3] for at in (10, len(longest) // 2, len(longest) - 5))
    dynamic, static = both(policy, stop=stops)
    same(dynamic, static)
    assert [len(c.ids) for c in dynamic] != [len(c.ids) for c in free]


def test_bf16_weights_give_the_same_tokens_in_eager_attention():
    for name in ("llama", "gemma3"):
        same(*both(tiny(name, torch.bfloat16, "eager")))


def test_bf16_weights_agree_to_their_precision_in_sdpa():
    """Another number of columns is added up in another order; tokens may part where two are almost equally likely."""
    for left, right in zip(*both(tiny("llama", torch.bfloat16)), strict=True):
        alike = next((t for t, (a, b) in enumerate(zip(left.ids, right.ids, strict=False)) if a != b), None)
        assert left.logprobs[:alike] == pytest.approx(right.logprobs[:alike], abs=0.1)
        assert alike is None or alike > 0


def test_float32_weights_under_autocast_are_sampled_as_with_a_dynamic_cache():
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        for left, right in zip(*both(tiny()), strict=True):
            assert left.logprobs[:1] == pytest.approx(right.logprobs[:1], abs=0.1)


def test_a_hybrid_is_refused_by_name_or_sampled_with_a_dynamic_cache(caplog):
    policy = tiny("lfm2")
    with pytest.raises(UserError, match=r"Lfm2ForCausalLM cannot decode with a static cache: layer 0 keeps another .*"):
        both(policy)
    sampler = HFSampler(cache="auto", compile="default")
    with caplog.at_level(logging.WARNING):
        same(*both(policy, sampler=sampler))
        both(policy, sampler=sampler)
    said = [record.getMessage() for record in caplog.records if record.name == "atmanrl"]
    assert len(said) == 1 and said[0].startswith("Lfm2ForCausalLM is sampled with a dynamic cache: layer 0 keeps")


def test_a_hybrid_in_company_says_what_it_says_alone():
    policy, uniform = tiny("lfm2"), numbers(3)
    together = HFSampler().sample(policy, UNEQUAL, uniform, SamplingOptions(LIMIT))
    for q, prompt in enumerate(UNEQUAL):
        same(together[q], HFSampler().sample(policy, [prompt], uniform[q : q + 1], SamplingOptions(LIMIT))[0])


def test_attention_that_cuts_keys_by_their_length_is_refused():
    policy = tiny()
    policy.model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="flash_attention_2 attention cuts its keys"):
        sampler = HFSampler(cache="static")
        sampler._is_static(policy, None)


def test_buffers_do_not_exceed_the_models_context():
    """MPT has a bias for as many columns as its context has, under a name of its own."""
    policy = tiny("mpt", attention="eager")
    assert policy.context_length == 53
    same(*both(policy))
    for cache in ("static", "dynamic"):
        with pytest.raises(UserError, match=r"12 tokens and max_new_tokens=43 exceed the model's context of 53 tokens"):
            HFSampler(cache=cache).sample(policy, UNEQUAL, numbers(3, GROUP, 43), SamplingOptions(43))


def test_wrong_combinations_are_named():
    with pytest.raises(UserError, match="needs a cache of fixed shape: give cache: static"):
        HFSampler("dynamic", "default")
    with pytest.raises(UserError, match="compile: cudagraphs needs a CUDA device, and the policy is on cpu"):
        both(tiny(), sampler=HFSampler(cache="static", compile="cudagraphs"))


def test_compiling_by_itself_leaves_a_cpu_and_a_dynamic_cache_as_they_are():
    same(*both(tiny(), sampler=HFSampler(cache="auto", compile="auto")))
    same(*both(tiny(), sampler=HFSampler(cache="dynamic", compile="auto")))


def test_nan_logits_are_told():
    policy = tiny()
    policy.model.get_output_embeddings().weight.data[5] = torch.nan
    with pytest.raises(UserError, match=r"NaN logits \(prompt 1 of the batch, token 1 of sample 1\)"):
        HFSampler(cache="static").sample(policy, UNEQUAL, numbers(3), SamplingOptions(LIMIT))


def test_a_step_keeps_its_addresses_and_shapes_and_never_asks_the_device(monkeypatch):
    """What a CUDA graph needs, seen on a CPU: the same storage after every step, and no value that reaches Python."""
    policy, seen = tiny(), []

    def watched(model, state, options):
        tensors = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
        tensors += [t for layer in state.cache.layers for t in (layer.keys, layer.values, layer.column)]
        before = [(t.data_ptr(), t.shape) for t in tensors]
        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__int__", "__index__", "__float__", "cpu", "nonzero"):
                patch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(f"a step calls Tensor.{name}"))
            static_decoding.decode_step(model, state, options)
        after = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
        after += [t for layer in state.cache.layers for t in (layer.keys, layer.values, layer.column)]
        assert [(t.data_ptr(), t.shape) for t in after] == before
        seen.append((len(state.tokens), state.attention_mask.shape[1]))

    sampler = HFSampler(cache="static")
    sampler._step = watched
    same(*both(policy, sampler=sampler, top_p=0.9, top_k=50, min_p=0.01))
    assert len(seen) > 30 and len(set(seen)) < 10  # few sizes
    assert {rows for rows, _ in seen} <= {2, 4, 8, 16} and {columns % 16 for _, columns in seen} == {0}


def test_a_step_is_one_graph_for_the_compiler_and_gives_the_same_tokens(monkeypatch):
    monkeypatch.setattr(static_decoding, "COLUMNS", 64)  # one shape, compiled once
    monkeypatch.setattr(static_decoding, "FEWEST_ROWS", 16)
    sampler = HFSampler(cache="static")
    sampler._step = torch.compile(static_decoding.decode_step, backend="aot_eager", fullgraph=True)
    same(*both(tiny("shallow"), sampler=sampler, top_p=0.9))


@pytest.mark.skipif("ATMANRL_SLOW" not in os.environ, reason="compiles for half a minute: set ATMANRL_SLOW=1")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_inductor_gives_the_same_tokens():
    same(*both(tiny("shallow"), sampler=HFSampler(cache="static", compile=True), top_k=50))
