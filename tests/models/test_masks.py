"""Masks with room below them: rows of padding alone stay finite in float16, in the sampler and in the update."""

import pytest
import torch
from conftest import BLANK
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask

from atmanrl.errors import UserError
from atmanrl.models.batching import positions
from atmanrl.models.masks import clamped, lowest
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import scores_at
from atmanrl.rollouts import HFSampler, SamplingOptions
from atmanrl.rollouts.decoding import left_padded

PROMPTS = [[1, 20, 30, 40, 41, 42], [1, 25]]


@pytest.fixture
def policy():
    """A float16 Llama of which every score is below -16: queries are the negative of keys, which are nearly alike."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=768, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, rope_parameters={"rope_theta": 1e9, "rope_type": "default"}, pad_token_id=0,
        attn_implementation="eager",
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)
        for layer in model.model.layers:
            attention = layer.self_attn
            keys = attention.k_proj.weight.fill_(0).view(4, 8, 32)
            keys[:, 1:4] = 0.2  # dimensions that turn slowly with the position
            attention.q_proj.weight.copy_(-attention.k_proj.weight)
    policy = Policy.around(model.half().eval(), AutoTokenizer.from_pretrained(BLANK))
    policy.eos_ids = (2,)
    return policy


def sampled(policy, cache):
    options = SamplingOptions(4)
    drawn = HFSampler(cache=cache).sample(policy, PROMPTS, torch.full((2, 2, 4), 0.5), options)
    return [completion for group in drawn for completion in group]


def scored(policy):
    ids, mask = left_padded(PROMPTS, 0, torch.device("cpu"))
    where = torch.zeros_like(mask, dtype=torch.bool)
    where[:, -2] = True
    scores = scores_at(
        policy.model, where, ids[:, -1], input_ids=ids, attention_mask=mask, position_ids=positions(mask)
    )
    scores[0].sum().backward()
    return torch.cat([*scores, *(p.grad.flatten() for p in policy.model.parameters())])


def test_padding_in_float16_is_finite_in_eager_attention(policy):
    together = sampled(policy, "dynamic")
    for static, dynamic in zip(sampled(policy, "static"), together, strict=True):
        assert static.ids == dynamic.ids and static.logprobs == pytest.approx(dynamic.logprobs, abs=0.01)
    alone = HFSampler().sample(policy, PROMPTS[1:], torch.full((1, 2, 4), 0.5), SamplingOptions(4))[0]
    assert [c.ids for c in alone] == [c.ids for c in together[2:]]
    assert scored(policy).isfinite().all()


def test_without_the_room_it_is_not(policy, monkeypatch):
    """That the policy above provokes what the room is for."""
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, "eager", eager_mask)
    with pytest.raises(UserError, match="NaN logits"):
        sampled(policy, "dynamic")
    assert scored(policy).isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_masked_has_probability_zero_and_scores_have_room(dtype):
    sizes = {"batch_size": 1, "q_length": 3, "kv_length": 3, "dtype": dtype}
    own, ours = eager_mask(**sizes), clamped(eager_mask)(**sizes)
    assert ours.dtype == dtype and torch.equal(own == 0, ours == 0) and ours.min() == lowest(dtype)
    assert torch.equal(own.softmax(-1), ours.softmax(-1))
    scores = torch.full((3, 3), -1000.0, dtype=dtype) + ours[0, 0]
    assert nn.functional.softmax(scores, -1, dtype=torch.float32).isfinite().all() and scores.isfinite().all()
