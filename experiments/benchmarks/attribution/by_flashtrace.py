"""FlashTrace (Pan et al. 2026, arXiv 2602.01914), by its package, on token ids.

Its answer is a distribution over the tokens *before* a span of generated ones. Two ways to ask for a reasoning's tokens:

- `span`: what `FlashTrace(...).trace(prompt, target)` computes, one hop, where the prompt is all that stands before the
  answer. Full stops, commas and white space get nothing, as the package has it.
- `hops`: the paper's method, in which attribution goes from the answer through the reasoning, one hop: the answer's
  attribution to the reasoning's tokens, and theirs, so weighted, to the tokens before. What falls on the reasoning's tokens
  is observed, where the package observes the prompt's.

The package tokenizes texts anew; here it is handed the tokens that the policy read and wrote.
"""

from __future__ import annotations

from typing import Any

import torch
from flashtrace.attribution import LLMIFRAttribution
from flashtrace.improved import LLMIFRAttributionBoth

from atmanrl.models.policy import Policy
from atmanrl.probe import Target
from experiments.benchmarks.attribution.methods import Attribute, one_by_one

HOPS = 1
"""The package's default."""


def span(policy: Policy) -> Attribute:
    """Attribution from the answer to all that stands before it."""

    def attribute(target: Target) -> list[float]:
        engine = _of_tokens(LLMIFRAttributionBoth, policy, target, len(target) - len(target.answer_ids))
        return _observed(engine.calculate_ifr_multi_hop_both("", "", n_hops=HOPS), target)

    return one_by_one(attribute)


def hops(policy: Policy) -> Attribute:
    """Attribution from the answer through the reasoning."""

    def attribute(target: Target) -> list[float]:
        engine = _of_tokens(LLMIFRAttribution, policy, target, len(target.prompt_ids))
        length, answer = len(target.cot_ids), len(target.context_ids)
        observed = torch.zeros(target.rows + 1)  # the generated tokens, and the end
        observed[:length] = 1
        result = engine.calculate_ifr_multi_hop(
            "", "", sink_span=(answer, target.rows - 1), thinking_span=(0, length - 1), n_hops=HOPS,
            observation_mask=observed,
        )  # fmt: skip
        return _observed(result, target)

    return one_by_one(attribute)


def _of_tokens(kind: Any, policy: Policy, target: Target, before: int) -> Any:
    """Return an engine of FlashTrace that takes a target's tokens for the prompt's and the generation's.

    Args:
        kind: the class of the engine.
        policy: built, with eager attention.
        target: what it is to read.
        before: how many of its tokens are the prompt's.
    """
    ids = [*target.prompt_ids, *target.tail, policy.eos_ids[0]]
    texts = [policy.tokenizer.decode([token]) for token in ids]

    class OfTokens(kind):  # type: ignore[misc]
        def target_response(self, prompt: str, target: str) -> str:
            self.prompt_ids = self.user_prompt_ids = torch.tensor([ids[:before]], device=policy.device)
            self.generation_ids = torch.tensor([ids[before:]], device=policy.device)
            self.prompt_tokens = self.user_prompt_tokens = texts[:before]
            self.generation_tokens = texts[before:]
            self.user_prompt_indices, self.chat_prompt_indices = list(range(before)), []
            self.prompt, self.user_prompt, self.generation = prompt, prompt, target
            return target

    return OfTokens(policy.model, policy.tokenizer)


def _observed(result: Any, target: Target) -> list[float]:
    """What all hops together attribute to the reasoning's tokens."""
    scores = result.metadata["ifr"]["observation_projected"]["sum"].flatten().double()
    begin = len(target.prompt_ids)
    return scores[begin : begin + len(target.cot_ids)].tolist()
