"""What several processes agree on, without any: parts of a minibatch, means, blocks and the order of problems."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.distributed import Processes, everyone, processes
from atmanrl.grpo.processes import deal, weighted_means
from atmanrl.rollouts.datamodule import Block, EpochOrder


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 120), st.integers(1, 5))
def test_everything_is_dealt_once_and_in_equally_many_parts(lengths, budget, count):
    rows = [100 + i for i in range(len(lengths))]
    dealt = [deal(rows, lengths, budget, Processes(rank, count)) for rank in range(count)]
    assert sorted(row for parts in dealt for part in parts for row in part) == rows
    assert len({len(parts) for parts in dealt}) == 1
    for parts in dealt:
        for part in parts:
            longest = max((lengths[row - 100] for row in part), default=0)
            assert len(part) <= 1 or len(part) * longest <= budget
    shares = [sum(map(len, parts)) for parts in dealt]
    assert max(shares) - min(shares) <= 1


def test_long_and_short_rollouts_are_shared():
    dealt = [deal(list(range(8)), [10, 10, 10, 10, 90, 90, 90, 90], 100, Processes(rank, 2)) for rank in (0, 1)]
    loads = [sum(90 if row > 3 else 10 for part in parts for row in part) for parts in dealt]
    assert loads[0] == loads[1] == 200


def test_means_leave_out_what_is_undefined():
    parts = [({"a": 1.0, "b": math.nan}, 1), ({"a": 4.0, "b": 2.0, "c": math.nan}, 2), ({"b": math.nan}, 5)]
    found = weighted_means(parts)
    assert found["a"] == 3.0 and found["b"] == 2.0 and math.isnan(found["c"])


@given(st.integers(0, 40), st.integers(1, 9))
def test_blocks_are_a_dataset_in_order(size, count):
    blocks = [list(Block(size, Processes(rank, count))) for rank in range(count)]
    assert [i for block in blocks for i in block] == list(range(size))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@pytest.mark.parametrize(("count", "done"), [(1, 0), (2, 0), (4, 1)])
def test_an_update_has_the_same_problems_on_any_number_of_processes(count, done):
    whole = list(EpochOrder(35, 7, lambda: done, Processes(0, 1), 8))
    orders = [EpochOrder(35, 7, lambda: done, Processes(rank, count), 8 // count) for rank in range(count)]
    shares = [list(order) for order in orders]
    for update in range(4 - done):
        each = 8 // count
        ours = [i for share in shares for i in share[update * each : (update + 1) * each]]
        assert ours == whole[update * 8 : (update + 1) * 8]
    assert len(whole) == 8 * (4 - done) and len(orders[0]) == 32 // count


def test_alone_there_is_nobody_to_ask():
    assert processes() == Processes(0, 1) and everyone("me") == ["me"]
