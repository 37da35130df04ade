"""`Reference`: the policy that a run started from, for the KL penalty."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import LightningModule
from torch import Tensor

from atmanrl.distributed import build, gathered, is_sharded
from atmanrl.errors import UserError
from atmanrl.grpo.scoring import Scorer
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import RolloutBatch


class Reference:
    """The weights that a run started from: those of `policy.path`, also after a restart from a checkpoint.

    With adapters it is the policy with its adapters switched off, and costs no memory. Otherwise it is a frozen policy of
    its own, sharded where the policy is, and never written into a checkpoint.
    """

    def __init__(self) -> None:
        self.policy: Policy | None = None

    def keep(self, policy: Policy, module: LightningModule) -> None:
        """Load the weights that a policy starts from, as the module's strategy wants them; once.

        Raises:
            UserError: the policy's weights were drawn and not loaded: a restarted run could not find them again.
        """
        if self.policy is not None or (policy.lora is not None and policy.adapter is None):
            return
        if not policy.pretrained:
            raise UserError("model.loss (its beta) needs a policy to stay close to: policy.pretrained must be true.")
        self.policy = build(policy.unbuilt(), module).eval().requires_grad_(False)

    def logprobs(self, scorer: Scorer, batch: RolloutBatch) -> list[Tensor]:
        """Return the log-probabilities of each rollout's completion under the weights that the run started from."""
        with self.of(scorer.policy) as model:
            return scorer.logprobs(batch, model)

    @contextmanager
    def of(self, policy: Policy) -> Iterator[Any]:
        """Give the reference model with full weights, on the policy's device; adapters are off within the context.

        Where weights are sharded, all processes must enter it.
        """
        if self.policy is not None:
            sharded = is_sharded(self.policy.model)  # and so on the device already
            with gathered(self.policy):
                yield self.policy.model if sharded else self.policy.model.to(policy.device)
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        with gathered(policy):
            layers = [part for part in policy.model.modules() if isinstance(part, BaseTunerLayer)]
            learned = [(p, p.requires_grad) for p in policy.model.parameters()]
            for layer in layers:
                layer.enable_adapters(False)
            try:
                yield policy.model
            finally:
                for layer in layers:
                    layer.enable_adapters(True)
                for parameter, before in learned:  # peft has its own opinion on what learns
                    parameter.requires_grad_(before)
