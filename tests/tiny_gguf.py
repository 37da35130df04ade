"""A tiny Llama in a GGUF file, written by the format's own library."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

gguf = pytest.importorskip("gguf")  # of the extra `gguf`

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "Ġ", "Ċ", "he", "Ġhe"]
MERGES = ["h e", "Ġ he"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
LAYER_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


def tiny_llama() -> LlamaForCausalLM:
    """Draw a model whose rows are whole blocks of 32 weights."""
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        rope_theta=100000.0,
    )  # fmt: skip
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection in llama.cpp's order: the halves of a head's rotary pairs side by side."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def write(model: LlamaForCausalLM, path: Path, quantization: str = "F32") -> dict[str, float]:
    """Write a model as a GGUF file; return the sum of each weight's absolute values, as the file's blocks hold them."""
    config, kind = model.config, gguf.GGMLQuantizationType[quantization]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    for add, number in ((writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2), (writer.add_pad_token_id, 2)):
        add(number)
    writer.add_unk_token_id(0)
    writer.add_chat_template(TEMPLATE)
    state, expected = model.state_dict(), {}
    layers = {f"blk.{n}.{ours}": f"model.layers.{n}.{name}" for n in range(2) for ours, name in LAYER_NAMES.items()}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for ours, name in {**NAMES, **layers}.items():
        weight = state[f"{name}.weight"].numpy()
        split = heads.get(ours.rpartition(".")[2])
        stored = weight if split is None else permuted(weight, split)
        of = kind if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        blocks = gguf.quantize(np.ascontiguousarray(stored), of)
        writer.add_tensor(f"{ours}.weight", blocks, raw_dtype=of)
        expected[f"{name}.weight"] = float(np.abs(gguf.dequantize(blocks, of)).sum())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected
