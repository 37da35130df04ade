"""How the benchmark of scaling reads a power off its measurements, and what it plans for."""

import pytest

from experiments.benchmarks.plan_check import Work
from experiments.benchmarks.scaling import COSTS, growth, power
from experiments.benchmarks.scaling_plan import shape


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.7, 2.0])
def test_a_power_is_read_off_a_range(exponent):
    assert power({n: 3.0 * n**exponent for n in (32, 64, 128, 256)}) == pytest.approx(exponent, abs=0.005)


def test_growth_stands_beside_the_plans():
    costs = {n: {cost: {"measured": 2.0 * n, "predicted": n * n} for cost in COSTS} for n in (2, 4, 8)}
    assert growth({"layers": costs})["layers"][COSTS[0]] == {"measured": 1.0, "predicted": 2.0}


@pytest.mark.parametrize(("name", "billions"), [("3B", 3.21), ("8B", 8.03), ("70B", 70.55)])
def test_the_shapes_have_as_many_parameters_as_their_models(name, billions):
    assert shape(name).parameters / 1e9 == pytest.approx(billions, abs=0.01)


def test_work_counts_its_rollouts():
    assert Work(prompt=1, completion=1, queries=3, group=5).rollouts == 15
