"""Gradient x input and integrated gradients in the embeddings of the reasoning's tokens, by captum.

The function is log p of the answer's tokens, of the reasoning's embeddings alone: prompt, delimiter and answer stay. An
attribution is summed over the dimensions of a token's embedding, with its sign. The baseline of integrated gradients is
the pad token's embedding, which deletion curves put in a token's place; so the tokens add up to what log p loses when all
of them are deleted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import InputXGradient
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor

from atmanrl.models.policy import Policy
from atmanrl.probe import Target
from atmanrl.probe.module import frozen
from experiments.benchmarks.attribution.methods import Attribute, one_by_one

STEPS = 50
"""Of the integral: captum's default."""


def gradient_x_input(policy: Policy) -> Attribute:
    """Gradient x input (Shrikumar et al. 2016, arXiv 1605.01713)."""
    return _attribute(policy, lambda function, cot, _: InputXGradient(function).attribute(cot))


def integrated_gradients(policy: Policy) -> Attribute:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365)."""

    def integral(function: AnswerLogprob, cot: Tensor, pad: Tensor) -> Tensor:
        return CaptumIntegratedGradients(function).attribute(
            cot, baselines=pad.expand_as(cot), n_steps=STEPS, internal_batch_size=8
        )

    return _attribute(policy, integral)


class AnswerLogprob:
    """log p of a target's answer tokens as a function of its reasoning's embeddings.

    Args:
        policy: built.
        target: whose other tokens stay as they are.
    """

    def __init__(self, policy: Policy, target: Target) -> None:
        self.model, self.device = policy.model, policy.device
        self.before = self.embedded(target.prompt_ids)
        self.after = self.embedded((*target.delimiter_ids, *target.answer_ids[:-1]))
        self.answer = torch.tensor(target.answer_ids, device=self.device)

    def embedded(self, ids: tuple[int, ...]) -> Tensor:
        """Return the embeddings of some tokens, `[1, S, D]`."""
        return self.model.get_input_embeddings()(torch.tensor([ids], dtype=torch.long, device=self.device)).detach()

    def __call__(self, cot: Tensor) -> Tensor:
        """Return log p, `[B]`, of embeddings `[B, T, D]`."""
        parts = [self.before.expand(len(cot), -1, -1), cot, self.after.expand(len(cot), -1, -1)]
        logits = self.model(inputs_embeds=torch.cat(parts, dim=1), use_cache=False).logits[:, -len(self.answer) :]
        logprobs = logits.log_softmax(-1)
        return logprobs.gather(2, self.answer.expand(len(cot), -1)[..., None]).sum((1, 2))


def _attribute(policy: Policy, method: Callable[[AnswerLogprob, Tensor, Tensor], Tensor]) -> Attribute:
    def attribute(target: Target) -> list[float]:
        with frozen(policy.model), torch.enable_grad():
            function = AnswerLogprob(policy, target)
            cot = function.embedded(target.cot_ids).requires_grad_()
            attributions = method(function, cot, function.embedded((policy.pad_id,)))
        return attributions[0].sum(-1).detach().tolist()

    return one_by_one(attribute)
