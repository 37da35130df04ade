"""What several processes agree on, without any: parts of a minibatch, means, blocks and the order of problems."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.distributed import Processes, all_gather, processes
from atmanrl.grpo.processes import weighted_means
from atmanrl.grpo.scoring import partition, partition_in_parts
from atmanrl.grpo.step_metrics import OptimizerStep, Tally, step_metrics
from atmanrl.rollouts.datamodule import Block, EpochOrder


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120), st.integers(1, 5))
def test_a_partition_has_everything_once_and_equally_many_parts(lengths, budget, count):
    divided = partition_in_parts(lengths, budget, 512, count)
    assert sorted(i for parts in divided for part in parts for i in part) == list(range(len(lengths)))
    assert len(divided) == count and len({len(parts) for parts in divided}) == 1
    for parts in divided:
        for part in parts:
            longest = max((lengths[i] for i in part), default=0)
            assert len(part) <= 1 or len(part) * longest <= budget
    sizes = [sum(map(len, parts)) for parts in divided]
    assert max(sizes) - min(sizes) <= 1
    assert [sorted(sum(parts, [])) for parts in divided] == partition(lengths, count)
    assert partition(lengths, 1) == [list(range(len(lengths)))]  # one process reads them as they stand


def test_long_and_short_rollouts_are_shared():
    divided = partition_in_parts([10, 10, 10, 10, 90, 90, 90, 90], 100, 512, 2)
    loads = [sum(90 if i > 3 else 10 for part in parts for i in part) for parts in divided]
    assert loads[0] == loads[1] == 200


def step(low=(1, 2), least=0.5, greatest=0.5, kl=(1.0, 10), **changes) -> OptimizerStep:
    """With ratios of completions, and a divergence of tokens."""
    tallies = {"kl": Tally(*kl, by_completion=False)}
    if low:
        tallies["low"] = Tally(*low, by_completion=True)
        tallies["least"] = Tally(0.0, low[1], True, "min", least)
        tallies["greatest"] = Tally(0.0, low[1], True, "max", greatest)
    return OptimizerStep(
        **{"loss": 1.0, "grad_norm": 2.0, "tokens": 10, "masked": 1, "entropy": 5.0, "tallies": tallies} | changes
    )


def test_a_step_is_the_sum_of_its_parts():
    idle = step(low=None, kl=(0.0, 0), loss=0.0, tokens=0, entropy=0.0)
    other = step(low=(2, 4), kl=(1.0, 30), least=0.25, greatest=1.0, tokens=30, entropy=7.0)
    whole = OptimizerStep.merged([idle, step(), other])
    assert whole == step(low=(3, 6), kl=(2.0, 40), loss=2.0, tokens=40, entropy=12.0, least=0.25, greatest=1.0)
    means = step_metrics([whole, OptimizerStep.merged([idle, idle])], ["kl", "of nothing"])
    assert means["entropy"] == 12 / 40 and means["loss"] == 1.0 and means["kl"] == 2 / 40 and means["of nothing"] == 0
    assert means["low"] == 3 / 7  # six completions, and one that was left out
    assert means["least"] == 0 and means["greatest"] == 1  # a step without parts has no say


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
    assert processes() == Processes(0, 1) and all_gather("me") == ["me"]
