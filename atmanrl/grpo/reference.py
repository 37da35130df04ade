"""`Reference`: the policy that a run started from, for the KL penalty."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atmanrl.errors import UserError
from atmanrl.policy import Policy


class Reference:
    """The weights that a run started from: those of `policy.path`, also after a restart from a checkpoint.

    With adapters it is the policy with its adapters switched off, and costs no memory. Otherwise it is a frozen copy,
    taken before a checkpoint is loaded and never written into one.
    """

    def __init__(self) -> None:
        self.model: Any = None

    def keep(self, policy: Policy) -> None:
        """Keep the weights that a policy has just loaded; called again it changes nothing.

        Raises:
            UserError: the weights were drawn and not loaded: a restarted run could not find them again.
        """
        if policy.lora is not None or self.model is not None:
            return
        if not policy.pretrained:
            raise UserError("model.beta needs a policy to stay close to: policy.pretrained must be true.")
        self.model = copy.deepcopy(policy.model).eval().requires_grad_(False)

    @contextmanager
    def of(self, policy: Policy) -> Iterator[Any]:
        """The reference model, on the policy's device; within the context a policy with adapters has them off."""
        if policy.lora is None:
            yield self.model.to(policy.device)
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers = [part for part in policy.model.modules() if isinstance(part, BaseTunerLayer)]
        learning = [p for p in policy.model.parameters() if p.requires_grad]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield policy.model
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for parameter in learning:  # peft freezes the adapters that it switches off
                parameter.requires_grad_(True)
