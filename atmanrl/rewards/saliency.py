"""The saliency reward (Eq. 3), by the mask probe."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

import torch

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe import MaskProbe, PaperSolver, ProbeResult
from atmanrl.probe.agreement import Agreement
from atmanrl.rewards.base import Reward, RewardOutput
from atmanrl.rewards.gate import Gate
from atmanrl.rewards.group_draw import GroupDraw
from atmanrl.rollouts.batch import RolloutBatch


class SaliencyReward(Reward):
    """How much the reasoning matters to the gold answer (Eq. 3).

    It abstains where there is no delimiter, no reasoning or no gold answer, and notes each token's saliency in the rollouts.

    Args:
        weight: factor in the total reward.
        probe: the mask probe, without a policy of its own.
        only_where: probes only rollouts in which another reward is high enough; elsewhere saliency adds nothing.
        share: the part of an update's groups that is probed, drawn anew for each update (see `GroupDraw`). There saliency
            counts 1 / share times, elsewhere it adds nothing: the same mean gradient at `share` of the cost, and more
            noise. In evaluation everything is probed.

    Raises:
        UserError: a share outside of (0, 1].
    """

    uses_policy: ClassVar[bool] = True

    def __init__(
        self,
        weight: float = 1.0,
        probe: MaskProbe | None = None,
        only_where: Gate | None = None,
        share: float = 1.0,
    ) -> None:
        super().__init__(weight, only_where)
        if not 0 < share <= 1:
            raise UserError(f"SaliencyReward: share is {share}; give a part of the groups above 0 and up to 1.")
        self.probe, self.draw = probe or MaskProbe(), GroupDraw(share)

    def __call__(self, batch: RolloutBatch, policy: Policy) -> RewardOutput:
        """Saliency of each rollout, `[B]` with NaN where it abstains, and of each token of its reasoning."""
        if not self.draw.applies(batch):
            return self._probed(batch, policy)
        drawn = self.draw.rollouts(batch)
        output = self._probed(batch.part(drawn), policy)
        values, factors = torch.full((len(batch),), float("nan")), torch.zeros(len(batch))
        tokens: list[Any] = [None] * len(batch)
        values[drawn], factors[drawn] = output.values.cpu(), 1 / self.draw.share
        for i, each in zip(drawn, output.token_values or (), strict=True):
            tokens[i] = each
        return RewardOutput(
            values, {**output.metrics, "saliency/probed_share": len(drawn) / len(batch)}, tokens, factors
        )

    def _probed(self, batch: RolloutBatch, policy: Policy) -> RewardOutput:
        result = self.probe.solve(policy, batch)
        for rollout, saliency, gradients in zip(
            batch.rollouts, result.saliency, result.gradients.tolist(), strict=True
        ):
            rollout.saliency, rollout.gradients = saliency, gradients
        self._check(batch, result, policy)
        correct = [bool(rollout.correct) for rollout in batch.rollouts]
        solved = torch.tensor(correct, dtype=torch.bool, device=result.reward.device)
        metrics = {
            **result.metrics(),
            "saliency/solved": float(result.reward[solved].nanmean()),
            "saliency/unsolved": float(result.reward[~solved].nanmean()),
        }
        return RewardOutput(result.reward, metrics, result.saliency)

    def observe(self, batch: RolloutBatch) -> dict[str, float]:
        """Let the solver's tolerance follow from this update's check, if there was one."""
        solver = self.probe.solver
        if solver.calibration is None:
            return {}
        checks = [(rollout.row, *rollout.check) for rollout in batch.rollouts if rollout.check is not None]
        rows, reference, rewards = zip(*checks, strict=True) if checks else ((), (), ())
        solver.calibration.observe(
            sum(rollout.gradients for rollout in batch.rollouts), Agreement.of(reference, rewards, rows),
            cost=solver.steps * len(checks),
        )  # fmt: skip
        solver.tolerance = solver.calibration.tolerance
        return solver.calibration.metrics()

    def state_dict(self) -> dict[str, Any]:
        """Return the calibration's state, where there is one."""
        calibration = self.probe.solver.calibration
        return {} if calibration is None else calibration.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a calibration; a run that is resumed without one keeps its own tolerance."""
        solver = self.probe.solver
        if solver.calibration is not None:
            solver.calibration.load_state_dict(state)
            solver.tolerance = solver.calibration.tolerance

    def _check(self, batch: RolloutBatch, result: ProbeResult, policy: Policy) -> None:
        """Solve the first of the update's probed groups by the reference, too, if a check is due, and note both rewards."""
        calibration = self.probe.solver.calibration
        if calibration is None or not calibration.due:
            return
        checked = set(islice(self.draw.places(batch), calibration.groups))
        chosen = [
            i
            for i, rollout in enumerate(batch.rollouts)
            if rollout.can_be_probed and batch.places.get(rollout.row) in checked
        ]
        if chosen:
            reference = self.probe.solve(policy, batch.part(chosen), PaperSolver.reference(self.probe.solver))
            result.seconds += reference.seconds
            for i, reward in zip(chosen, reference.reward.tolist(), strict=True):
                batch.rollouts[i].check = reward, float(result.reward[i])
