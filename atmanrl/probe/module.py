"""`MaskProbe`: the inner loop as a LightningModule. Its steps and the saliency reward call one and the same `solve`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from lightning import Callback, LightningModule
from torch import nn

from atmanrl.distributed import build, fail_together
from atmanrl.errors import UserError
from atmanrl.models.modes import evaluating
from atmanrl.models.policy import Policy
from atmanrl.probe import mask as masks
from atmanrl.probe.attention import attention_hook, choose_backend
from atmanrl.probe.attributions import Attribution
from atmanrl.probe.guard import check
from atmanrl.probe.objective import Objective
from atmanrl.probe.result import Found, ProbeResult
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver, Solver
from atmanrl.probe.target import policy_target
from atmanrl.rollouts.batch import Rollout, RolloutBatch

SolverName = Literal["paper", "adaptive"]
Attention = Literal["auto", "lean", "eager", "sdpa"]


class MaskProbe(LightningModule):
    """Optimizes each rollout's attention mask towards the gold answer and reads the saliency off it.

    Standing alone it loads its own policy; inside a reward it is handed the policy that is being trained and stores
    nothing of it. Optimization is manual: masks change their shape with every batch and are never parameters.

    Args:
        policy: the model to probe with `atmanrl probe` or a Trainer; not needed inside a reward.
        solver: `paper` (200 AdamW steps, the reference), `adaptive` (the same path with fewer gradients), or a
            `Solver` by its class_path with options of its own.
        init_value: c, the mask's initial value, below 0.
        scale: the bias is `scale * min(H, 0)`.
        orientation: of the reward, see `probe.mask.oriented`.
        include_eos: whether the loss includes the end-of-sequence token (Eq. 2 does not).
        batch_tokens: most reasoning, delimiter and answer tokens, padding counted, in one forward pass.
        attention: `lean` (see `probe.lean`), `eager` or `sdpa`; `auto` takes the first of them that the model can run.
        cache_prompts: read a problem's prompt once for all its rollouts, where the model's cache can be shared.
        keep_masks: whether results hold the masks themselves.
        shape: of the mask: `full` is the paper's, see `probe.mask.Entries`.
        attribution: another measure in place of the paper's optimized mask, by its class_path: `Suppression`,
            `GradientAtStart`, `IntegratedGradients`. It is in nats, and neither solver nor orientation matter to it.

    Raises:
        UserError: an option that cannot be.
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
            raise UserError(f"the probe's init_value is {init_value}; the mask suppresses, so give a number below 0.")
        if scale <= 0 or batch_tokens < 1:
            raise UserError("the probe's scale and batch_tokens must be above 0.")
        choices = (("orientation", orientation, masks.Orientation), ("shape", shape, masks.Shape))
        for name, value, kind in (*choices, ("attention", attention, Attention)):
            if value not in get_args(kind):
                raise UserError(f"the probe's {name} {value!r} is unknown; choose one of {', '.join(get_args(kind))}.")
        named = {"paper": PaperSolver, "adaptive": AdaptiveSolver}
        if isinstance(solver, str) and solver not in named:
            raise UserError(f"the probe's solver {solver!r} is unknown; choose one of {', '.join(named)}, or a Solver.")
        if attribution is not None:
            attribution.check(shape)
        self.policy = policy
        self.solver: Solver = named[solver]() if isinstance(solver, str) else solver
        self.attribution = attribution
        self.init_value, self.scale, self.orientation = init_value, scale, orientation
        self.include_eos, self.batch_tokens = include_eos, batch_tokens
        self.attention, self.cache_prompts, self.keep_masks = attention, cache_prompts, keep_masks
        self.shape: masks.Shape = shape

    def solve(self, policy: Policy, batch: RolloutBatch, solver: Solver | None = None) -> ProbeResult:
        """Optimize the masks of all rollouts of a batch that can be probed.

        The policy is left as it was found: parameters, gradients, mode, attention and caches.

        Args:
            policy: built.
            batch: of rollouts.
            solver: in place of the probe's own.

        Raises:
            ProbeError: the model ignores the bias, its logits are not finite, or a rollout exceeds its context.
        """
        began = time.perf_counter()
        probed = [i for i, rollout in enumerate(batch.rollouts) if rollout.can_be_probed]
        device = policy.device
        # a trainer may validate in inference mode: nothing can be optimized in it, nor its tensors changed outside it
        with torch.inference_mode(False), torch.enable_grad():
            result = ProbeResult.empty(len(batch), device)
            if probed:
                targets = [policy_target(batch.rollouts[i], policy, self.include_eos) for i in probed]
                # a trained policy repeats itself: rollouts that are alike, token for token, are solved once
                distinct = {each: k for k, each in enumerate(dict.fromkeys(targets))}
                found = Found(probed, [distinct[each] for each in targets], device)
                backend = choose_backend(policy.model) if self.attention == "auto" else self.attention
                with frozen(policy.model), attention_hook(policy.model, backend):
                    check(policy.model)
                    objective = Objective(
                        policy.model, list(distinct), self.scale, policy.pad_id, self.batch_tokens, self.cache_prompts,
                        self.shape,
                    )  # fmt: skip
                    if self.attribution is None:
                        self._optimize(result, objective, found, solver or self.solver)
                    else:
                        self._attribute(self.attribution, result, objective, found)
        result.seconds = time.perf_counter() - began
        return result

    def _attribute(self, attribution: Attribution, result: ProbeResult, objective: Objective, found: Found) -> None:
        measured = attribution.attribute(objective, self.init_value)
        found.put(result.reward, measured.reward)
        found.put(result.loss_initial, measured.loss_initial)
        found.put(result.loss_final, measured.loss_final)
        found.put(result.gradients, measured.gradients)
        tokens = [each.tolist() for each in measured.tokens]
        for i, k in zip(found.rollouts, found.targets, strict=True):
            result.saliency[i] = list(tokens[k])

    def _optimize(self, result: ProbeResult, objective: Objective, found: Found, solver: Solver) -> None:
        solution = solver.solve(objective, self.init_value)
        entries, values = objective.entries, solution.values
        every_row = torch.arange(len(objective.targets), device=values.device)
        final = objective.evaluate(values, every_row, gradient=False)
        found.put(result.reward, masks.saliency_reward(values, entries.packing, self.init_value, self.orientation))
        found.put(result.loss_initial, solution.loss_initial)
        found.put(result.loss_final, final.loss)
        found.put(result.gradients, solution.gradients)
        result.below_epsilon = solution.below_epsilon
        for i, k in zip(found.rollouts, found.targets, strict=True):
            result.losses[i] = list(solution.losses[k])
            one = every_row[k : k + 1]
            mask, where = entries.dense(values[entries.packing.index(one)], one), entries.where(one)
            tokens = masks.token_saliency(mask, where, self.init_value, self.orientation)
            result.saliency[i] = tokens[0].tolist()
            result.masks[i] = mask[0] if self.keep_masks else None

    def configure_callbacks(self) -> list[Callback]:
        """On several processes, one that ends all of them where one fails."""
        return fail_together(self.trainer)

    def configure_model(self) -> None:
        """Load the policy, when the probe stands alone."""
        if self.policy is None:
            raise UserError("MaskProbe stands alone here and needs a policy: give model.policy.path.")
        build(self.policy, self, shard=False)

    def configure_optimizers(self) -> None:
        """None: `solve` makes its own."""

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
        """The rollouts with their saliency and reward."""
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
        figures = {"saliency": float(result.reward.nanmean()), **result.metrics()}
        self.log_dict({prefix + name: value for name, value in figures.items()}, batch_size=len(batch))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in eval mode with no trainable parameter; afterwards as it was."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with evaluating(model):
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
