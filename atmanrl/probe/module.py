"""`MaskProbe`: the probe for target tokens, for a batch of rollouts, and as a LightningModule.

`explain` and `atmanrl probe` call `solve_targets`; the saliency reward and Lightning's steps call `solve`, which makes
targets of rollouts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn

from atmanrl.contention import watch
from atmanrl.distributed import build, fail_together
from atmanrl.errors import UserError, prefixed
from atmanrl.models.devices import current
from atmanrl.models.modes import evaluating
from atmanrl.models.policy import Policy
from atmanrl.probe import mask as masks
from atmanrl.probe.attention import ProbeError, attention_hook, choose_backend
from atmanrl.probe.attributions import Attribution
from atmanrl.probe.guard import check
from atmanrl.probe.objective import Objective
from atmanrl.probe.result import ProbeResult
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver, Solver
from atmanrl.probe.target import Target, policy_target
from atmanrl.rollouts.batch import Rollout, RolloutBatch

SolverName = Literal["paper", "adaptive"]
Attention = Literal["auto", "lean", "eager", "sdpa"]


class MaskProbe(LightningModule):
    """Optimizes an attention mask for each target, towards the answer, and reads the saliency off it.

    With a policy of its own it is a LightningModule that stands alone. In a reward it is handed the policy that is being
    trained, and stores nothing of it. Masks change their shape with every batch, so they are no parameters of the module,
    and its optimization is manual.

    Args:
        policy: the model to probe with a Trainer; in a reward, and for `solve`, it is not needed.
        solver: `paper` (200 AdamW steps, the reference), `adaptive` (the same path with fewer gradients), or a
            `Solver` by its class_path with options of its own.
        init_value: c, the mask's initial value, below 0.
        scale: the bias is `scale * min(H, 0)`.
        orientation: of the reward, see `probe.mask.oriented`.
        include_eos: whether the loss includes the end-of-sequence token (Eq. 2 does not).
        batch_tokens: most tokens of reasoning, delimiter and answer in one forward pass, padding counted.
        attention: `lean` (see `probe.lean`), `eager` or `sdpa`; `auto` takes the first of them that the model can run.
        cache_prompts: read a problem's prompt once for all its rollouts, where the model's cache can be shared.
        keep_masks: whether results include the masks themselves.
        shape: of the mask: `full` is the paper's, see `probe.mask.Entries`.
        attribution: another measure in place of the paper's optimized mask, by its class_path: `Suppression`,
            `GradientAtStart`, `IntegratedGradients`. It is in nats, and depends on neither solver nor orientation.

    Raises:
        UserError: an option is out of its range; the message names it.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        solver: SolverName | Solver = "paper",
        init_value: float = -0.4,
        scale: float = 10.0,
        orientation: masks.Orientation = "restored",
        include_eos: bool = False,
        batch_tokens: int = 1024,
        attention: Attention = "auto",
        cache_prompts: bool = True,
        keep_masks: bool = False,
        shape: masks.Shape = "full",
        attribution: Attribution | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if init_value >= 0:
            raise UserError(f"init_value is {init_value} (in YAML, probe.init_value); give a number below 0.")
        if scale <= 0 or batch_tokens < 1:
            raise UserError(
                f"scale is {scale} and batch_tokens {batch_tokens} (in YAML, of probe); both must be above 0."
            )
        masks.check_choice("orientation", orientation, masks.Orientation, "probe.orientation")
        masks.check_choice("shape", shape, masks.Shape, "probe.shape")
        masks.check_choice("attention", attention, Attention, "probe.attention")
        if isinstance(solver, str):
            masks.check_choice("solver", solver, SolverName, "probe.solver")
            solver = PaperSolver() if solver == "paper" else AdaptiveSolver()
        if attribution is not None:
            attribution.check(shape)
        self.policy = policy
        self.solver: Solver = solver
        self.attribution = attribution
        self.init_value, self.scale, self.orientation = init_value, scale, orientation
        self.include_eos, self.batch_tokens = include_eos, batch_tokens
        self.attention, self.cache_prompts, self.keep_masks = attention, cache_prompts, keep_masks
        self.shape: masks.Shape = shape

    @torch.inference_mode(False)
    def solve(self, policy: Policy, batch: RolloutBatch, solver: Solver | None = None) -> ProbeResult:
        """Probe all rollouts of a batch that have a reasoning, as `solve_targets` does.

        Args:
            policy: built.
            batch: of rollouts.
            solver: in place of the probe's own.

        Raises:
            ProbeError: see `solve_targets`; or a gold answer has no token. The message names the problem.
        """
        targets: list[Target] = []
        places: list[int | None] = []
        for rollout in batch.rollouts:
            places.append(len(targets) if rollout.can_be_probed else None)
            if rollout.can_be_probed:
                targets.append(policy_target(rollout, policy, self.include_eos))
        return self.solve_targets(policy, targets, solver).at(places)

    # a trainer may validate in inference mode: nothing can be optimized in it, nor its tensors changed outside it
    @torch.inference_mode(False)
    @torch.enable_grad()
    def solve_targets(self, policy: Policy, targets: Sequence[Target], solver: Solver | None = None) -> ProbeResult:
        """Measure how much each token of some reasonings matters to the answers that follow them.

        Nothing of the policy is changed afterwards: parameters, gradients, mode, attention and caches.

        Args:
            policy: built.
            targets: B reasonings with their answers, as token ids.
            solver: in place of the probe's own.

        Returns:
            The result of every target.

        Raises:
            ProbeError: the model ignores the bias, its logits are not finite, or a target exceeds its context, has no
                reasoning or answer, or has tokens that the model does not know.
        """
        began = time.perf_counter()
        watch()
        # a trained policy repeats itself: targets that are alike, token for token, are solved once
        distinct = {each: k for k, each in enumerate(dict.fromkeys(targets))}
        for k, each in enumerate(distinct):
            with prefixed(f"target {k}", ProbeError):
                each.check(policy)
                if not each.cot_ids:
                    raise ProbeError("the reasoning has no token.")
        if not distinct:
            return ProbeResult.empty(policy.device)
        backend = choose_backend(policy.model) if self.attention == "auto" else self.attention
        with current(policy.device), frozen(policy.model), attention_hook(policy.model, backend):
            check(policy.model)
            objective = Objective(
                policy.model,
                list(distinct),
                self.scale,
                policy.pad_id,
                self.batch_tokens,
                self.cache_prompts,
                self.shape,
            )
            if self.attribution is None:
                result = self._optimize(objective, solver or self.solver)
            else:
                result = self._attribute(objective, self.attribution)
        result.seconds = time.perf_counter() - began
        return result.at([distinct[each] for each in targets])

    def eos_id(self, policy: Policy) -> int | None:
        """Return the token that ends an answer under `include_eos`, None without it."""
        return policy.eos_ids[0] if self.include_eos else None

    def _attribute(self, objective: Objective, attribution: Attribution) -> ProbeResult:
        measured = attribution.attribute(objective, self.init_value)
        saliency: list[list[float] | None] = [tokens.tolist() for tokens in measured.tokens]
        return ProbeResult(
            measured.reward, saliency, measured.loss_initial, measured.loss_final, measured.gradients, below_epsilon=0.0,
            masks=[None] * len(saliency), losses=[[] for _ in saliency],
        )  # fmt: skip

    def _optimize(self, objective: Objective, solver: Solver) -> ProbeResult:
        solution = solver.solve(objective, self.init_value)
        entries, values = objective.entries, solution.values
        loss_final = objective.loss(values)
        saliency: list[list[float] | None] = []
        kept: list[Tensor | None] = []
        for one in objective.indices[:, None]:
            mask, where = entries.dense(values[entries.ragged.positions(one)], one), entries.where(one)
            saliency.append(masks.token_saliency(mask, where, self.init_value, self.orientation)[0].tolist())
            kept.append(mask[0] if self.keep_masks else None)
        reward = masks.saliency_reward(values, entries.ragged, self.init_value, self.orientation)
        return ProbeResult(
            reward, saliency, solution.loss_initial, loss_final, solution.gradients, solution.below_epsilon, kept,
            solution.losses,
        )  # fmt: skip

    def configure_callbacks(self) -> list[Callback]:
        """Return a callback that ends all processes where one fails, if there are several."""
        return fail_together(self.trainer)

    def configure_model(self) -> None:
        """Load the policy of a probe that stands alone.

        Raises:
            UserError: there is none.
        """
        if self.policy is None:
            raise UserError(
                "policy is None, which a MaskProbe alone needs; give a Policy (in YAML, model.policy.path)."
            )
        build(self.policy, self, shard=False)

    def configure_optimizers(self) -> None:
        """Return none: `solve` has its own."""

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Probe a batch and log its means."""
        self._step(batch, "")

    def validation_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Probe a batch and log its means."""
        self._step(batch, "val/")

    def test_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Probe a batch and log its means."""
        self._step(batch, "test/")

    def predict_step(self, batch: RolloutBatch, batch_idx: int) -> list[Rollout]:
        """Probe a batch and return its rollouts, with saliency and reward."""
        self._probe(batch)
        return batch.rollouts

    def _probe(self, batch: RolloutBatch) -> ProbeResult:
        assert self.policy is not None
        result = self.solve(self.policy, batch)
        for rollout, saliency, reward in zip(batch.rollouts, result.saliency, result.reward.tolist(), strict=True):
            rollout.saliency, rollout.rewards["saliency"] = saliency, reward
        return result

    def _step(self, batch: RolloutBatch, prefix: str) -> None:
        result = self._probe(batch)
        metrics = {"saliency": float(result.reward.nanmean()), **result.metrics()}
        self.log_dict({prefix + name: value for name, value in metrics.items()}, batch_size=len(batch))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode with no trainable parameter within; afterwards it is as it was."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with evaluating(model):
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
