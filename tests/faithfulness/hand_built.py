"""Policies built by hand, of which it is known what they read, and rollouts for the tests of faithfulness."""

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from atmanrl.models.policy import Policy
from atmanrl.rollouts import Completion, Rollout, split
from atmanrl.tasks import Problem


def rollout(policy, prompt: str, completion: str, gold: str, sample: int = 0, correct: bool = True) -> Rollout:
    """A rollout of a text that ends by itself."""
    ids = [*policy.tokenizer(completion, add_special_tokens=False).input_ids, policy.eos_ids[0]]
    return Rollout(
        Problem(f"p/{prompt}", prompt, gold), 0, sample, prompt, policy.encode_prompt(prompt), Completion(ids, [], True),
        split(policy.tokenizer, ids), correct,
    )  # fmt: skip


def copying_policy(folder, source: str) -> Policy:
    """A transformer of one layer that answers with the digit that it finds, and then ends.

    It attends to digits from 1 to 9 alone, and uniformly to all of them. Digits with a space before them stand in a
    reasoning, those without one in a prompt (`a7`).

    Args:
        folder: of a tokenizer.
        source: `reasoning`: it copies from its reasoning; `prompt`: it does from its prompt, and ignores its reasoning.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=40, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        head_dim=20, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 1e12},
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    spaced = [tokenizer(f"a {digit}", add_special_tokens=False).input_ids[-1] for digit in range(1, 10)]
    bare = [tokenizer(f"a{digit}", add_special_tokens=False).input_ids[-1] for digit in range(1, 10)]
    assert len({*spaced, *bare}) == 18
    read = spaced if source == "reasoning" else bare
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1)
        # dimensions: 0 is 1 everywhere, 1 marks what is read, 2 a spaced digit, 3 all others; 4 to 12 say which digit it
        # is that is read; 14 to 22 are what attention brings
        embedding = model.model.embed_tokens.weight
        embedding[:, 0] = 1
        embedding[:, 3] = 1
        for k, token in enumerate(read):
            embedding[token, 3] = 0
            embedding[token, 1] = embedding[token, 4 + k] = 2**-0.5
        for token in spaced:
            embedding[token, 2] = 1
        attention = model.model.layers[0].self_attn
        attention.q_proj.weight[9, 0] = attention.k_proj.weight[9, 1] = 20  # the pair of dimensions that hardly rotates
        for k in range(9):
            attention.o_proj.weight[14 + k, k] = 1
            attention.v_proj.weight[k, 4 + k] = 1
            model.lm_head.weight[spaced[k], 14 + k] = 100
        model.lm_head.weight[2, 2] = 1000
    return Policy.around(model, tokenizer)
