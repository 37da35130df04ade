import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.errors import UserError
from atmanrl.probe.mask import Entries, effective, oriented, saliency_reward, token_saliency
from atmanrl.probe.ragged import Ragged

SIZES = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=4)  # (T, D + N) of each rollout
ORIENTATIONS = st.sampled_from(["restored", "printed"])
SHAPES = {
    "full": lambda w, v, t: w >= v,
    "cot_rows": lambda w, v, t: t > w >= v,
    "answer_rows": lambda w, v, t: w >= t,
}


def places(reasoning: int, rest: int, shape: str = "full") -> list[tuple[int, int]]:
    cells = [(w, v) for w in range(reasoning + rest) for v in range(reasoning)]
    return [(w, v) for w, v in cells if SHAPES[shape](w, v, reasoning)]


def entries(sizes: list[tuple[int, int]], shape: str = "full") -> Entries:
    return Entries(torch.tensor([t + rest for t, rest in sizes]), torch.tensor([t for t, _ in sizes]), shape)


def drawn(count: int, c: float, seed: int) -> torch.Tensor:
    """Values around c that may rise above 0."""
    return c + 2 * abs(c) * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SIZES, st.sampled_from(list(SHAPES)), st.data())
def test_values_stand_row_by_row(sizes, shape, data):
    found = entries(sizes, shape)
    rows = data.draw(st.lists(st.sampled_from(range(len(sizes))), min_size=1, max_size=5))
    chosen = torch.tensor(rows)
    values = torch.arange(1, found.ragged.total + 1)
    dense = found.dense(values[found.ragged.positions(chosen)], chosen)
    assert dense.shape == (len(rows), max(sum(sizes[k]) for k in rows), max(sizes[k][0] for k in rows))
    before = np.cumsum([0] + [len(places(*size, shape)) for size in sizes])
    assert before[-1] == found.ragged.total
    for matrix, where, k in zip(dense, found.where(chosen), rows, strict=True):
        expected = torch.zeros_like(matrix)
        for number, place in enumerate(places(*sizes[k], shape)):
            expected[place] = before[k] + number + 1
        assert torch.equal(matrix, expected)
        assert torch.equal(where, expected > 0)


@given(SIZES)
def test_a_column_mask_has_one_value_a_token(sizes):
    found, every_row = entries(sizes, "column"), torch.arange(len(sizes))
    values = torch.arange(1.0, found.ragged.total + 1).requires_grad_()
    dense = found.dense(values, every_row)
    starts = np.cumsum([0] + [t for t, _ in sizes])
    for k, size in enumerate(sizes):
        cells = places(*size)
        assert all(float(dense[k][w, v].detach()) == starts[k] + v + 1 for w, v in cells)
        assert int((dense[k] != 0).sum()) == len(cells)
    # what attends to a token adds up in the token's gradient
    dense.sum().backward()
    heights = [t + rest - v for t, rest in sizes for v in range(t)]
    assert values.grad.tolist() == heights


def test_an_unknown_shape():
    with pytest.raises(UserError, match="'rows' is unknown; choose one of full, column, cot_rows, answer_rows"):
        entries([(2, 1)], "rows")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.data())
def test_ragged_values(counts, data):
    ragged = Ragged(torch.tensor(counts))
    flat = [(k, n) for k, count in enumerate(counts) for n in range(count)]
    for number in (torch.arange(len(counts)), torch.arange(len(counts)).double().requires_grad_()):
        assert ragged.spread(number).tolist() == [k for k, _ in flat]
    rows = data.draw(st.lists(st.sampled_from(range(len(counts))), max_size=5))
    chosen = torch.tensor(rows, dtype=torch.long)
    assert [flat[i] for i in ragged.positions(chosen).tolist()] == [(k, n) for k in rows for n in range(counts[k])]
    assert ragged.take(chosen).counts.tolist() == [counts[k] for k in rows]
    values = torch.arange(float(len(flat)))
    assert ragged.sums(values).tolist() == [sum(values[i].item() for i, (k, _) in enumerate(flat) if k == j)
                                             for j in range(len(counts))]  # fmt: skip


@given(SIZES, ORIENTATIONS, st.floats(-2, -0.01), st.integers(0, 99))
def test_reward_is_a_mean_over_trainable_entries(sizes, orientation, c, seed):
    ragged = entries(sizes).ragged
    values = drawn(ragged.total, c, seed)
    found = saliency_reward(values, ragged, c, orientation)
    parts = values.split([len(places(*size)) for size in sizes])
    for k, part in enumerate(parts):
        share = np.mean([min(value, 0.0) / c for value in part.tolist()])
        assert float(found[k]) == pytest.approx(1 - share if orientation == "restored" else share, rel=1e-12, abs=1e-12)


@given(SIZES, ORIENTATIONS, st.floats(-2, -0.01), st.integers(0, 99))
def test_a_tokens_saliency_is_the_mean_down_its_column(sizes, orientation, c, seed):
    where = entries(sizes).where(torch.arange(len(sizes)))
    mask = drawn(where.numel(), c, seed).view(where.shape)  # rubbish where there is no entry
    found = token_saliency(mask, where, c, orientation)
    for k, size in enumerate(sizes):
        for v in range(found.shape[1]):
            column = [min(float(mask[k, w, v]), 0.0) / c for w, u in places(*size) if u == v]
            share = np.mean(column) if column else np.nan
            expected = 0.0 if v >= size[0] else 1 - share if orientation == "restored" else share
            assert float(found[k, v]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(SIZES, ORIENTATIONS, st.integers(0, 99))
def test_columns_weighted_by_their_heights_give_the_reward(sizes, orientation, seed):
    found, every_row = entries(sizes), torch.arange(len(sizes))
    where, values = found.where(every_row), drawn(found.ragged.total, -0.4, seed)
    heights, tokens = where.sum(1), token_saliency(found.dense(values, every_row), where, -0.4, orientation)
    torch.testing.assert_close(
        (tokens * heights).sum(1) / heights.sum(1), saliency_reward(values, found.ragged, -0.4, orientation)
    )


def test_extremes_of_both_orientations():
    ragged = entries([(3, 2), (2, 1)]).ragged
    for value, reward in [(-0.4, 0.0), (0.3, 1.0)]:
        values = torch.full((ragged.total,), value)
        for orientation, expected in (("restored", reward), ("printed", 1 - reward)):
            found = saliency_reward(values, ragged, -0.4, orientation)
            torch.testing.assert_close(found, torch.full((2,), expected))
    share = torch.tensor([0.25, 1.5])
    assert oriented(share, "restored").tolist() == [0.75, -0.5]
    assert oriented(share, "printed").tolist() == [0.25, 1.5]
    assert effective(torch.tensor([-0.4, 0.0, 0.1])).tolist() == pytest.approx([-0.4, 0, 0])
