"""Tiny random models of many architectures, and their answers under a mask, computed without the package.

`scores_with` adds the bias to whatever a model hands to its softmax; the model's own masks have been applied by then,
so causality, windows, alibi, soft caps and sinks are the model's own business.
"""

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

VOCAB = 64
WINDOW = 5
COMMON = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "attention_dropout": 0.0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
           "shared_expert_intermediate_size": 24}  # fmt: skip
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
EVERY = ("lean", "eager", "sdpa")


@dataclass(frozen=True)
class Architecture:
    """How to build one.

    Attributes:
        prefix: of its configuration's class.
        options: of the configuration, beside `COMMON`.
        backends: those that it has.
        cached: whether a prompt's cache can be shared.
        layers: that have softmax attention.
    """

    prefix: str
    options: dict[str, Any] = field(default_factory=dict)
    backends: tuple[str, ...] = EVERY
    cached: bool = True
    layers: int = 2

    def build(self, backend: str, dtype: str = "float64") -> Any:
        """The model in eval mode, the same weights each time (rounded to the dtype)."""
        transformers = importlib.import_module("transformers")
        kind = getattr(transformers, self.prefix + "Config")
        taken = {k: v for k, v in COMMON.items() if not isinstance(getattr(kind, k, None), property)}
        config = kind(**taken | self.options)
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=backend)
        model = model.to(getattr(torch, dtype)).eval()
        if dtype == "float64" and hasattr(config, "_experts_implementation"):
            config._experts_implementation = "eager"  # the others have no float64
        strong(model)
        return model


def strong(model: nn.Module) -> None:
    """Weights at which attention matters: a fresh random model says nearly the same whatever it attends to."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.copy_(drawn * 1.5 / weight.shape[-1] ** 0.5)


class Biased(TorchFunctionMode):
    """Within it `bias [n, n]` is added to every softmax over n keys (or n and a sink); `count` says to how many.

    GraniteSWA takes the logarithm of the softmax's denominator once more, for its sinks.
    """

    SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)
    SUM = (torch.logsumexp, Tensor.logsumexp)

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias, self.count = bias, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (*self.SOFTMAX, *self.SUM) and args[0].ndim == 4:
            n = len(self.bias)
            assert args[0].shape[-2:] in ((n, n), (n, n + 1))
            args = (args[0] + nn.functional.pad(self.bias, (0, args[0].shape[-1] - n)), *args[1:])
            self.count += func in self.SOFTMAX
        return func(*args, **(kwargs or {}))


ARCHITECTURES = {
    "Llama": Architecture("Llama"),
    "Mistral": Architecture("Mistral", {"sliding_window": None}),
    "Mistral, sliding window": Architecture("Mistral", {"sliding_window": WINDOW}),
    "Mixtral": Architecture("Mixtral", {**EXPERTS, "sliding_window": WINDOW}),
    "Qwen2": Architecture("Qwen2"),
    "Qwen2, sliding window": Architecture("Qwen2", {**MIXED, "use_sliding_window": True}),
    "Qwen2-MoE": Architecture("Qwen2Moe", EXPERTS),
    "Qwen3": Architecture("Qwen3"),
    "Qwen3-MoE": Architecture("Qwen3Moe", EXPERTS),
    "Gemma": Architecture("Gemma"),
    "Gemma2": Architecture("Gemma2", {**MIXED, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0}, ("eager",)),
    "Gemma3 (text)": Architecture("Gemma3Text", {**MIXED, "query_pre_attn_scalar": 8}),
    "Phi": Architecture("Phi"),
    "Phi3": Architecture("Phi3", {"sliding_window": WINDOW}),
    "OLMo2": Architecture("Olmo2"),
    "OLMo3": Architecture("Olmo3", MIXED),
    "GPT-NeoX": Architecture("GPTNeoX"),
    "GPT-2": Architecture("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "SmolLM3": Architecture("SmolLM3", {"no_rope_layers": [1, 0]}),
    "Granite": Architecture("Granite", {"attention_multiplier": 0.3, "logits_scaling": 2.0}),
    "Cohere": Architecture("Cohere", {"logit_scale": 0.5}),
    "Cohere2": Architecture("Cohere2", {**MIXED, "logit_scale": 0.5}),
    "StableLM": Architecture("StableLm"),
    "StarCoder2": Architecture("Starcoder2", {"sliding_window": WINDOW}),
    "GLM4": Architecture("Glm4"),
    "Ministral3": Architecture("Ministral3", {"sliding_window": WINDOW}),
    "OLMo": Architecture("Olmo"),
    "OLMoE": Architecture("Olmoe", EXPERTS),
    "Granite-MoE": Architecture("GraniteMoe", {**EXPERTS, "attention_multiplier": 0.3}),
    "GraniteSWA": Architecture("GraniteSWA", MIXED, ("eager",)),
    "Nemotron": Architecture("Nemotron"),
    "Seed-OSS": Architecture("SeedOss"),
    "Ernie 4.5": Architecture("Ernie4_5"),
    "EXAONE 4": Architecture("Exaone4", MIXED),
    "GLM4-MoE": Architecture("Glm4Moe", EXPERTS),
    "MiniMax-M2": Architecture("MiniMaxM2", EXPERTS),
    "HunYuan": Architecture("HunYuanDenseV1"),
    "Apertus": Architecture("Apertus"),
    "GPT-BigCode": Architecture("GPTBigCode", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "Jamba": Architecture(
        "Jamba",
        {**EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 4},
        cached=False, layers=1,
    ),
    "Qwen3.5 (text)": Architecture(
        "Qwen3_5Text",
        {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
         "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        cached=False, layers=1,
    ),
    "DeepSeek-V3": Architecture(
        "DeepseekV3",
        {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 16,
         "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1,
         "num_key_value_heads": 4},
    ),
    "Llama4 (text)": Architecture(
        "Llama4Text",
        {**EXPERTS, "attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", "full_attention"],
         "intermediate_size_mlp": 48},
    ),
    "Falcon (rotary), eager": Architecture("Falcon", {"alibi": False}, ("eager",)),
    "Falcon (rotary), sdpa": Architecture("Falcon", {"alibi": False}, ("sdpa",)),
    "OPT": Architecture("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "Bloom": Architecture("Bloom", {"n_layer": 2, "n_head": 4}, ("eager",)),
    "gpt-oss": Architecture("GptOss", {**EXPERTS, **MIXED}, ("eager",)),
    "LFM2": Architecture(
        "Lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}, cached=False, layers=1
    ),
    "Qwen3-Next": Architecture(
        "Qwen3Next",
        {**EXPERTS, "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4,
         "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
        cached=False, layers=1,
    ),
}  # fmt: skip

IGNORING = {
    "Falcon (alibi), eager": Architecture("Falcon", {"alibi": True}, ("eager",)),
    "Falcon (alibi), sdpa": Architecture("Falcon", {"alibi": True}, ("sdpa",)),
    "MPT": Architecture("Mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}, ("eager",)),
    "Mamba": Architecture("Mamba", {"state_size": 4}, ("eager",)),
    "RWKV": Architecture("Rwkv", {"attention_hidden_size": 32}, ("eager",)),
}
"""Models that the bias does not reach."""
