"""How far two distributions are apart, in nats."""

from __future__ import annotations

import torch
from torch import Tensor


def bernoulli_js(logprobs: Tensor, others: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of pairs of Bernoulli distributions, from 0 to ln 2.

    With m = (p + q) / 2 it is (KL(p || m) + KL(q || m)) / 2.

    Args:
        logprobs: log p, of any shape.
        others: log q, of a shape that broadcasts with it.

    Returns:
        In float64, of the shape of both.
    """
    p, q = logprobs.double().exp().clamp(max=1), others.double().exp().clamp(max=1)
    return _js(torch.stack([p, 1 - p]), torch.stack([q, 1 - q]), dim=0)


def kl(logprobs: Tensor, others: Tensor) -> Tensor:
    """Return KL(p || q) of distributions over the last dimension, at least 0.

    Args:
        logprobs: log p, `[..., V]`.
        others: log q, of the same shape.
    """
    p, q = logprobs.double(), others.double()
    return (p.exp() * (p - q)).sum(-1).clamp(min=0)


def js(logprobs: Tensor, others: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of distributions over the last dimension, from 0 to ln 2.

    Args:
        logprobs: log p, `[..., V]`.
        others: log q, of the same shape.
    """
    return _js(logprobs.double().exp(), others.double().exp(), dim=-1)


def _js(p: Tensor, q: Tensor, dim: int) -> Tensor:
    """The divergence of probabilities along a dimension; 0 log 0 is 0."""
    mean = (p + q) / 2
    # a mean of 0 stands beside p = q = 0 alone
    log = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
    pairs = sum(torch.xlogy(each, each) - each * log for each in (p, q))
    return (pairs.sum(dim) / 2).clamp(min=0)  # type: ignore[union-attr]
