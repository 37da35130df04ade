"""Log-probabilities and entropies of tokens, in float32 whatever the model computes in."""

import pytest
import torch

from atmanrl.models.token_scores import token_logprobs, token_scores


def test_token_logprobs_are_a_softmax_at_a_temperature():
    logits, tokens = torch.randn(5, 11), torch.tensor([0, 3, 10, 2, 2])
    expected = (logits / 0.7).log_softmax(-1)[torch.arange(5), tokens]
    torch.testing.assert_close(token_logprobs(logits, tokens, 0.7), expected)
    assert token_logprobs(logits.bfloat16(), tokens).dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_entropies_are_computed_in_float32_under_autocast(kind):
    """In bfloat16 the product of shares and logits is off by hundredths of a nat."""
    torch.manual_seed(0)
    logits, tokens = torch.randn(6, 5000) * 3, torch.arange(6)
    exact = logits.double().log_softmax(-1)
    with torch.autocast("cpu", dtype=kind):
        chosen, entropy = token_scores(logits, tokens)
        assert entropy.dtype == chosen.dtype == token_logprobs(logits, tokens).dtype == torch.float32
    assert (entropy + (exact.exp() * exact).sum(-1)).abs().max() < 1e-5
    assert (chosen - exact[tokens, tokens]).abs().max() < 1e-5


@pytest.mark.parametrize("at_once", [1, 33, 70, 10**6])
def test_entropies_of_some_rows_at_a_time_are_those_of_all(at_once, monkeypatch):
    monkeypatch.setattr("atmanrl.models.token_scores.PRODUCTS_AT_ONCE", at_once)
    torch.manual_seed(0)
    logits, tokens = torch.randn(7, 33), torch.arange(7)
    exact = logits.double().log_softmax(-1)
    torch.testing.assert_close(
        token_scores(logits, tokens)[1].double(), -(exact.exp() * exact).sum(-1), rtol=1e-6, atol=1e-6
    )
