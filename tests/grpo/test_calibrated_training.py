"""Training with a tolerance that checks itself: which rollouts are checked, what is logged, what a checkpoint keeps."""

import math

import pytest
import torch
from tiny_runs import Feed, Run

from atmanrl.distributed import Processes
from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe import AdaptiveSolver, MaskProbe, PaperSolver
from atmanrl.rewards import Gate, OutcomeReward, SaliencyReward
from atmanrl.rollouts import datamodule

OPTIONS = {"steps": 12, "lr": 1e-2}
GROUP = 6


def rewards(**options):
    solver = AdaptiveSolver(0.02, first_interval=2, **OPTIONS, agreement=0.5, **options)
    return {"saliency": SaliencyReward(probe=MaskProbe(solver=solver))}


@pytest.fixture(scope="module")
def run(tiny_folder) -> Run:
    return Run(tiny_folder, feed=Feed(written=True, group_size=GROUP), rewards=rewards(), lr=1e-3)


def test_the_first_groups_of_the_first_update_are_checked_against_the_papers_solver(run, tiny_policy):
    first, second = run.feed.given
    checked = [i for i, rollout in enumerate(first.rollouts) if rollout.check is not None]
    assert checked == [i for i in range(2 * GROUP) if i % GROUP]  # the others have no reasoning
    assert all(rollout.check is None for rollout in second.rollouts)  # which must be earned first
    expected = MaskProbe(solver=PaperSolver(**OPTIONS)).solve(tiny_policy, first).reward
    for i in checked:
        theirs, ours = first.rollouts[i].check
        assert theirs == pytest.approx(float(expected[i]), abs=1e-6) and ours == first.rollouts[i].rewards["saliency"]


def test_what_is_logged_is_what_the_check_found(run):
    pairs = torch.tensor([r.check for r in run.feed.given[0].rollouts if r.check is not None], dtype=torch.float64)
    groups = pairs.view(2, GROUP - 1, 2)
    x, y = (groups - groups.mean(1, keepdim=True)).flatten(0, 1).T
    assert run.logged["probe/agreement"] == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]), abs=1e-6)
    assert run.logged["probe/agreement_slope"] == pytest.approx(float((x * y).sum() / (x * x).sum()), abs=1e-6)
    assert run.logged["probe/agreement_lower"] < run.logged["probe/agreement"]
    solver = run.module.rewards["saliency"].probe.solver
    assert run.logged["probe/tolerance"] == pytest.approx(solver.tolerance) and solver.tolerance != 0.02


def test_checks_come_again_when_they_are_earned(tiny_folder):
    run = Run(tiny_folder, feed=Feed(written=True, group_size=GROUP), rewards=rewards(check_share=1.0), updates=8)
    checked = [any(r.check is not None for r in batch.rollouts) for batch in run.feed.given]
    taken = [sum(r.gradients for r in batch.rollouts) for batch in run.feed.given]
    earned, expected = 0, []
    for gradients in taken:
        expected.append(earned >= 0)
        earned += gradients - expected[-1] * OPTIONS["steps"] * 2 * (GROUP - 1)
    assert checked == expected and 2 <= sum(checked) < 8


def test_a_checkpoint_keeps_the_calibration(run, tmp_path):
    kept = {}
    run.module.on_save_checkpoint(kept)
    torch.save(kept, tmp_path / "kept")
    other = GRPOModule(Policy("nowhere"), rewards=rewards())
    other.on_load_checkpoint(torch.load(tmp_path / "kept", weights_only=True))
    theirs, ours = (module.rewards["saliency"].probe.solver for module in (run.module, other))
    assert ours.tolerance == theirs.tolerance != 0.02
    assert ours.calibration.state_dict() == theirs.calibration.state_dict() and not ours.calibration.due


def test_a_run_without_calibration_goes_on_from_a_checkpoint_with_one_and_the_other_way_round(run):
    kept = {}
    run.module.on_save_checkpoint(kept)
    fixed = {"saliency": SaliencyReward(probe=MaskProbe(solver=AdaptiveSolver(0.5)))}
    GRPOModule(Policy("nowhere"), rewards=fixed).on_load_checkpoint(kept)
    assert fixed["saliency"].probe.solver.tolerance == 0.5
    plain = {}
    GRPOModule(Policy("nowhere"), rewards=fixed).on_save_checkpoint(plain)
    fresh = rewards()
    GRPOModule(Policy("nowhere"), rewards=fresh).on_load_checkpoint(plain)
    assert fresh["saliency"].probe.solver.calibration.due


def test_evaluation_checks_nothing(run):
    run.module.evaluate_all_rewards = True
    run.trainer.limit_val_batches = 1.0
    run.module.rewards["saliency"].probe.solver.calibration._earned = 0.0
    run.trainer.validate(run.module, run.feed, verbose=False)
    evaluated = run.feed.given[-1]
    assert any(r.saliency for r in evaluated.rollouts) and all(r.check is None for r in evaluated.rollouts)


def test_behind_a_gate_what_passes_it_is_checked(tiny_folder):
    gated = rewards(check_groups=3)
    gated["saliency"].only_where = Gate("outcome", at_least=0.0)
    run = Run(
        tiny_folder, feed=Feed(written=True, group_size=GROUP), rewards={"outcome": OutcomeReward()} | gated, updates=1
    )
    (batch,) = run.feed.given
    checked = [r for r in batch.rollouts if r.check is not None]
    assert checked and all(r.correct for r in checked)
    assert len(checked) == sum(bool(r.correct) and r.can_be_probed for r in batch.rollouts)


def test_places_are_counted_over_all_processes(tiny_folder, monkeypatch):
    """The second of two processes answers the update's problems from the fourth on, and has none of the first three."""
    real = datamodule.processes
    monkeypatch.setattr(datamodule, "processes", lambda: Processes(1, 2))
    feed = Feed(written=True, group_size=GROUP)
    run = Run(tiny_folder, feed=feed, rewards=rewards(check_groups=3), updates=1)
    (batch,) = feed.given
    assert list(batch.places.values()) == [3, 4, 5]
    assert set(batch.places) == {r.row for r in batch.rollouts} and all(r.check is None for r in batch.rollouts)
    assert real().count == 1 and not math.isnan(run.logged["probe/tolerance"])
