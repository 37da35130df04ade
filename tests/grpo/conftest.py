"""What the tests of GRPO share."""

import pytest
import torch


@pytest.fixture
def start(tiny_policy) -> torch.Tensor:
    """The tiny policy's weights as they were loaded, in one vector."""
    return torch.cat([p.detach().flatten() for p in tiny_policy.parameters()])
