"""Group advantages against numpy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.grpo import group_advantages
from atmanrl.grpo.advantages import EPSILON

REWARDS = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(st.floats(-3, 3), min_size=size, max_size=size), min_size=1, max_size=5)
)


def reference(groups: list[list[float]], scaling: str) -> np.ndarray:
    out = []
    everything = np.array(groups, dtype=np.float64)
    for group in everything:
        centred = group - sum(group) / len(group)
        if scaling == "group":
            centred = centred / (np.sqrt(sum(centred**2) / (len(group) - 1)) + 1e-4)
        if scaling == "batch":
            centred = centred / (np.std(everything, ddof=1) + 1e-4)
        out.append(centred)
    return np.concatenate(out)


@pytest.mark.parametrize("scaling", ["none", "group", "batch"])
@given(groups=REWARDS)
def test_against_numpy(scaling, groups):
    rewards = torch.tensor(groups, dtype=torch.float64).flatten()
    found = group_advantages(rewards, len(groups[0]), scaling)
    assert found.numpy() == pytest.approx(reference(groups, scaling), abs=1e-9, rel=1e-9)
    assert found.view(len(groups), -1).sum(1).abs().max() < 1e-9 / EPSILON


def test_no_scaling_is_the_default_and_groups_do_not_mix():
    rewards = torch.tensor([0.0, -1.0, 0.0, -1.0, 10.0, 12.0, 14.0, 20.0])
    found = group_advantages(rewards, 4)
    assert found.tolist() == [0.5, -0.5, 0.5, -0.5, -4.0, -2.0, 0.0, 6.0]
    assert torch.equal(found[:4], group_advantages(rewards[:4], 4))
    assert torch.equal(found[:4], group_advantages(rewards + torch.tensor([3.0] * 4 + [0.0] * 4), 4)[:4])


@pytest.mark.parametrize("scaling", ["none", "group", "batch"])
def test_equal_rewards_give_no_advantage(scaling):
    rewards = torch.tensor([-1.0] * 4 + [0.0] * 4)
    assert group_advantages(rewards, 4, scaling).tolist() == [0.0] * 8
    assert group_advantages(torch.full((8,), -1.0), 4, scaling).tolist() == [0.0] * 8  # not NaN


def test_the_hazard_of_group_scaling():
    """Outcomes all equal: tiny differences of saliency become as large as right and wrong in another group."""
    rewards = torch.tensor([0.500, 0.501, 0.502, 0.503, 0.0, 0.0, -1.0, -1.0], dtype=torch.float64)
    plain, scaled = group_advantages(rewards, 4), group_advantages(rewards, 4, "group")
    assert plain[:4].abs().max() < 0.004 * plain[4:].abs().max()
    assert scaled[:4].abs().max() > scaled[4:].abs().max()


def test_rewards_that_fill_no_group_are_refused():
    with pytest.raises(RuntimeError):
        group_advantages(torch.zeros(7), 4)
