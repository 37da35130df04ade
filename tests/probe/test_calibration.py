"""The tolerance that checks itself: against simulated policies, within its budget, and in training."""

import math

import numpy as np
import pytest

from atmanrl.errors import UserError
from atmanrl.probe import AdaptiveSolver
from atmanrl.probe.agreement import Agreement
from atmanrl.probe.calibration import ALIKE, CONFIDENCE, Calibration

TARGET, COST = 0.99, 16 * 200


def check(rng, distance: float) -> Agreement:
    """Two groups of eight rollouts whose rewards correlate by 1 - distance with the reference's."""
    x = rng.normal(size=16)
    y = (1 - distance) * x + math.sqrt(1 - (1 - distance) ** 2) * rng.normal(size=16)
    return Agreement.of(x.tolist(), y.tolist(), [0] * 8 + [1] * 8)


def simulated(hard: float, power: float, updates: int, seed: int = 0, start: float = 0.001):
    """A run on a policy where 1 - correlation is hard * tolerance^power, and gradients fall with the tolerance."""
    rng, calibration = np.random.default_rng(seed), Calibration(TARGET, start)
    tolerances, gradients, checks = [], 0, 0
    for _ in range(updates):
        mine = int(64 * 30 * (0.001 / calibration.tolerance) ** 0.35)
        due, gradients = calibration.due, gradients + mine
        found = check(rng, min(1.0, hard * calibration.tolerance**power)) if due else Agreement()
        checks += due
        calibration.observe(mine, found, COST if due else 0)
        tolerances.append(calibration.tolerance)
    return tolerances, gradients, checks * COST


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("fair", [0.0003, 0.003, 0.03])
def test_the_tolerance_finds_the_agreement_that_is_wanted(fair, power):
    """`fair` is the tolerance at which the correlation is the target: runs stay below it nearly always, but not far."""
    runs = [simulated((1 - TARGET) / fair**power, power, 1500, seed)[0] for seed in range(12)]
    settled = np.array(runs)[:, 500:] / fair
    assert (settled <= 1).mean() > 0.85 and settled.max() < 3
    assert np.median(settled[:, -1]) > 0.3


def test_checks_keep_within_their_share():
    _, gradients, spent = simulated(hard=2.0, power=1.0, updates=2000)
    assert 0.04 * gradients < spent <= 0.05 * gradients + COST


def test_the_first_check_is_due_at_once_and_the_next_when_it_is_earned():
    calibration = Calibration(TARGET, 0.001)
    assert calibration.due
    calibration.observe(1000, check(np.random.default_rng(0), 0.001), COST)
    waited = 0
    while not calibration.due:
        calibration.observe(1000, Agreement(), 0)
        waited += 1
    assert waited == (COST - 50) / 50


def test_an_update_with_nothing_to_check_changes_nothing():
    calibration = Calibration(TARGET, 0.004)
    calibration.observe(1000, Agreement(), 0)
    calibration.observe(1000, Agreement.of([0.1, 0.1, 0.1, 0.1, 0.1], [0.1] * 5, [0] * 5), 1000)
    assert calibration.tolerance == 0.004 and calibration.metrics() == {"probe/tolerance": 0.004}


def test_a_bad_check_shrinks_the_tolerance_at_once_and_never_below_its_bound():
    calibration = Calibration(TARGET, 0.004)
    for _ in range(12):
        calibration.observe(0, check(np.random.default_rng(1), 0.5), 0)
    assert calibration.tolerance == 1e-5


def test_a_tolerance_that_failed_is_approached_by_halves():
    rng, calibration = np.random.default_rng(0), Calibration(TARGET, 0.008)
    calibration.observe(0, check(rng, 0.3), 0)
    assert calibration.tolerance == 0.001
    calibration.observe(0, check(rng, 1e-6), 0)
    assert calibration.tolerance == 0.002  # by no more than the factor of two
    calibration.observe(0, check(rng, 1e-6), 0)
    assert calibration.tolerance == pytest.approx(0.004)
    calibration.observe(0, check(rng, 1e-6), 0)
    assert calibration.tolerance == pytest.approx(math.sqrt(0.004 * 0.008))
    calibration.observe(0, check(rng, 1e-6), 0)
    assert calibration.tolerance == pytest.approx(math.sqrt(0.004 * 0.008))  # what is left is no more than noise
    for _ in range(2):
        calibration.observe(0, check(rng, 1e-6), 0)
    assert calibration.tolerance > 0.008  # that check was of another policy


def test_checks_at_another_tolerance_do_not_count():
    rng, calibration = np.random.default_rng(0), Calibration(TARGET, 0.004)
    calibration.observe(0, check(rng, 0.3), 0)
    assert calibration.tolerance < 0.004 / ALIKE and calibration.agreement.rollouts == 16
    calibration.observe(0, check(rng, 1e-4), 0)
    assert calibration.agreement.rollouts == 16 and calibration.agreement.pearson > 0.999
    assert calibration.agreement.lower_bound(CONFIDENCE) == calibration.metrics()["probe/agreement_lower"]


def test_a_restored_calibration_goes_on_as_the_first():
    def observed(calibration, seed):
        calibration.observe(5000, check(np.random.default_rng(seed), 0.01), 3200)
        return calibration.state_dict()

    first, second = Calibration(TARGET, 0.004), Calibration(TARGET, 0.004)
    second.load_state_dict(observed(first, 0))
    assert second.state_dict() == first.state_dict() and second.due == first.due
    assert observed(first, 1) == observed(second, 1)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [({"agreement": 1.0}, "agreement"), ({"agreement": 0.0}, "agreement"),
     ({"agreement": 0.9, "check_share": 0.0}, "check_share"), ({"agreement": 0.9, "check_groups": 0}, "check_groups")],
)  # fmt: skip
def test_wrong_options_are_named(wrong, name):
    with pytest.raises(UserError, match=name):
        AdaptiveSolver(**wrong)
