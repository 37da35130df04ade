import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.probe.mask import effective, oriented, saliency_reward, token_saliency, trainable

SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4)  # (T, D + N) of each rollout
ORIENTATIONS = st.sampled_from(["restored", "printed"])


def entries(reasoning: int, rest: int) -> list[tuple[int, int]]:
    return [(w, v) for w in range(reasoning + rest) for v in range(reasoning) if w >= v]


def drawn(sizes: list[tuple[int, int]], c: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks around c that may rise above 0, with rubbish where nothing is trainable; and the trainable entries."""
    where = trainable(torch.tensor([t + rest for t, rest in sizes]), torch.tensor([t for t, _ in sizes]))
    noise = torch.randn(where.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return c + 2 * abs(c) * noise, where


@given(SIZES)
def test_trainable_entries(sizes):
    where = trainable(torch.tensor([t + rest for t, rest in sizes]), torch.tensor([t for t, _ in sizes]))
    assert where.shape == (len(sizes), max(t + rest for t, rest in sizes), max(t for t, _ in sizes))
    for found, (t, rest) in zip(where, sizes, strict=True):
        assert sorted(map(tuple, found.nonzero().tolist())) == entries(t, rest)
        assert int(found.sum()) == t * (t + 1) // 2 + t * rest


@given(SIZES, ORIENTATIONS, st.floats(-2, -0.01), st.integers(0, 99))
def test_reward_is_a_mean_over_trainable_entries(sizes, orientation, c, seed):
    mask, where = drawn(sizes, c, seed)
    found = saliency_reward(mask, where, c, orientation)
    for k, (t, rest) in enumerate(sizes):
        share = np.mean([min(float(mask[k, w, v]), 0.0) / c for w, v in entries(t, rest)])
        assert float(found[k]) == pytest.approx(1 - share if orientation == "restored" else share, rel=1e-12, abs=1e-12)


@given(SIZES, ORIENTATIONS, st.floats(-2, -0.01), st.integers(0, 99))
def test_a_tokens_saliency_is_the_mean_down_its_column(sizes, orientation, c, seed):
    mask, where = drawn(sizes, c, seed)
    found = token_saliency(mask, where, c, orientation)
    for k, (t, rest) in enumerate(sizes):
        for v in range(found.shape[1]):
            column = [min(float(mask[k, w, v]), 0.0) / c for w, u in entries(t, rest) if u == v]
            share = np.mean(column) if column else np.nan
            expected = 0.0 if v >= t else 1 - share if orientation == "restored" else share
            assert float(found[k, v]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(SIZES, ORIENTATIONS, st.integers(0, 99))
def test_columns_weighted_by_their_heights_give_the_reward(sizes, orientation, seed):
    mask, where = drawn(sizes, -0.4, seed)
    heights = where.sum(1)
    tokens = token_saliency(mask, where, -0.4, orientation)
    torch.testing.assert_close(
        (tokens * heights).sum(1) / heights.sum(1), saliency_reward(mask, where, -0.4, orientation)
    )


def test_extremes_of_both_orientations():
    where = trainable(torch.tensor([5, 3]), torch.tensor([3, 2]))
    suppressed, restored = torch.full(where.shape, -0.4), torch.full(where.shape, 0.3)
    for mask, reward in [(suppressed, 0.0), (restored, 1.0)]:
        torch.testing.assert_close(saliency_reward(mask, where, -0.4, "restored"), torch.full((2,), reward))
        torch.testing.assert_close(saliency_reward(mask, where, -0.4, "printed"), torch.full((2,), 1 - reward))
    share = torch.tensor([0.25, 1.5])
    assert oriented(share, "restored").tolist() == [0.75, -0.5]
    assert oriented(share, "printed").tolist() == [0.25, 1.5]
    assert effective(torch.tensor([-0.4, 0.0, 0.1])).tolist() == pytest.approx([-0.4, 0, 0])
