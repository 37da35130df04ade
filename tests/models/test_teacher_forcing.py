"""Teacher-forced log-probabilities of answers, beside one plain forward pass for each sequence."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config

from atmanrl.models.errors import PolicyError
from atmanrl.models.policy import Policy
from atmanrl.models.teacher_forcing import answer_logprobs

SEQUENCES = [
    ([5, 6, 7, 8], [9, 10, 11], [12, 13]),
    ([5, 6, 7, 8], [], [12, 13]),
    ([5, 6, 7, 8], [9], [12]),
    ([14, 15], [16, 17, 18, 19, 20], [21, 22, 23]),
    ([14], [16, 17], [21]),
    ([], [30, 31], [32, 33]),
    ([5, 6, 7, 8], [9, 10, 11], [12, 13]),
]
"""Prompt, context, answer; the last is the first again."""


def plain(model, prompt, context, answer) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *context, *answer]])
    with torch.no_grad():
        logprobs = model(ids).logits[0].double().log_softmax(-1)
    return torch.stack([logprobs[ids.shape[1] - len(answer) + k - 1, token] for k, token in enumerate(answer)])


def compare(policy, tolerance: float = 1e-6, **options) -> None:
    values = answer_logprobs(policy, *zip(*SEQUENCES, strict=True), **options)
    for (prompt, context, answer), each in zip(SEQUENCES, values, strict=True):
        assert each.shape == (len(answer),) and not each.requires_grad and each.device.type == "cpu"
        torch.testing.assert_close(each.double(), plain(policy.model, prompt, context, answer), rtol=0, atol=tolerance)


@pytest.mark.parametrize("budget", [10_000, 12, 1])
def test_they_are_those_of_each_sequence_alone(tiny_policy, budget):
    compare(tiny_policy, micro_batch_tokens=budget)


def test_each_prompt_is_read_once_and_what_is_alike_is_computed_once(tiny_policy):
    shapes = []
    handle = tiny_policy.model.base_model.register_forward_hook(
        lambda _module, args, kwargs, _out: shapes.append(list(kwargs["input_ids"].shape)), with_kwargs=True
    )
    answer_logprobs(tiny_policy, *zip(*SEQUENCES, strict=True))
    handle.remove()
    # two prompts without their last tokens; the four different sequences after them; the two that share no prompt
    assert shapes == [[2, 3], [4, 8], [2, 3]]


@pytest.mark.parametrize(
    "config",
    [
        BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=50),
        Gemma2Config(
            hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            head_dim=8, vocab_size=50, sliding_window=4, final_logit_softcapping=3.0,
        ),
    ],
    ids=["bloom", "gemma2"],
)  # fmt: skip
def test_models_whose_prompts_cannot_be_shared(tiny_policy, config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    policy = Policy.around(model, tiny_policy.tokenizer)
    values = answer_logprobs(policy, *zip(*SEQUENCES, strict=True))
    assert model.training and values[0].dtype == torch.float32
    model.eval()
    compare(policy, 1e-5)


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (([5], [6], []), "sequence 0 needs an answer"),
        (([], [], [7]), "sequence 0 needs an answer"),
        (([5] * 9999, [], [7]), "sequence 0: 10000 tokens exceed the model's context"),
    ],
)
def test_sequences_that_cannot_be_read(tiny_policy, sequence, message):
    with pytest.raises(PolicyError, match=message):
        answer_logprobs(tiny_policy, *([part] for part in sequence))


def test_no_sequences_are_no_work(tiny_policy):
    assert answer_logprobs(tiny_policy, [], [], []) == []
