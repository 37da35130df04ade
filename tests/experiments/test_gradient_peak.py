"""The gradient that the benchmark writes out by hand is PyTorch's."""

import torch

from experiments.benchmarks.gradient_peak import ROWS, TOKENS, Batch, ByHand


def test_the_gradient_by_hand_is_pytorchs():
    torch.manual_seed(1)
    batch, mask = Batch(), -torch.rand(ROWS, TOKENS, TOKENS)
    expected = batch.autograd(mask)
    assert expected.abs().max() > 0.1 and not expected.triu(1).any()
    torch.testing.assert_close(ByHand(batch, compiled=False)(mask), expected, rtol=1e-4, atol=1e-4)
