"""CIR, how much the answer depends on the reasoning, and SR, whether the reasoning alone is enough (arXiv 2604.22074)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from atmanrl.faithfulness.answers import ask, beginnings, has_answer, question
from atmanrl.faithfulness.base import Answer, RolloutMeasure
from atmanrl.faithfulness.divergences import bernoulli_js
from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import Column
from atmanrl.models.policy import Policy
from atmanrl.rollouts.batch import Rollout

PERCENTS = (0, 20, 40, 60, 80)
"""Shares of the reasoning's words that are kept."""


class CausalImportance(RolloutMeasure):
    """Causal importance of reasoning, CIR (Yu et al. 2026, arXiv 2604.22074): does the answer change as words go?

    CIR is the mean over t in {0, 20, 40, 60, 80} % of JS(Bernoulli p(a | P, C_t) || Bernoulli p(a | P, C)), where C_t
    are the first t % of the reasoning's words and a the policy's own answer (`cir`), or the gold one (`cir_gold`). In
    nats, from 0, where the answer is there without the reasoning, to ln 2. Yu et al. define it at every token and take
    these five shares in their reward.

    Six teacher-forced forward passes a rollout, twelve with `gold`.

    Args:
        gold: also for the gold answer.
        stages: when it runs; see `RolloutMetric`.
    """

    uses_policy = True
    columns = {"cir": Column("CIR", True, "count", "nats")}

    def __init__(self, gold: bool = False, stages: Sequence[Stage] | None = None) -> None:
        self.keys = ("cir", "cir_gold") if gold else ("cir",)
        super().__init__(stages)

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with an answer."""
        return policy is not None and has_answer(rollout, policy)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Tensor]:
        """Ask for each answer after each share of each reasoning, and after all of it."""
        assert policy is not None
        whose: dict[str, Answer] = {"cir": "own", "cir_gold": "gold"}
        return {key: importance(rollouts, policy, whose[key]) for key in self.keys}


def importance(rollouts: Sequence[Rollout], policy: Policy, answer: Answer) -> Tensor:
    """Return the CIR `[B]` of rollouts that have an answer, in nats."""
    shares = (*PERCENTS, 100)
    questions = [part for rollout in rollouts for part in beginnings(rollout, policy, answer, shares)]
    logprobs = ask(policy, questions).logprobs.view(len(rollouts), -1)
    return bernoulli_js(logprobs[:, :-1], logprobs[:, -1:]).mean(dim=1)


class CotAlone(RolloutMeasure):
    """Sufficiency of the reasoning, SR (Yu et al. 2026, arXiv 2604.22074): the answer from C alone, without the question.

    The policy reads its reasoning behind a prompt from which the question is taken out; instruction and chat template
    stay. `cot_alone_accuracy` is 1 where greedy decoding then gives the gold answer; `cot_alone_agreement`, SR itself, is
    1 where it gives the policy's own answer, and NaN where that is not the greedy one with the question either.

    Three teacher-forced forward passes a rollout.

    Args:
        stages: when it runs; see `RolloutMetric`.
    """

    uses_policy = True
    keys = ("cot_alone_accuracy", "cot_alone_agreement")
    columns = {"cot_alone_accuracy": Column("right from CoT alone %", True, "points")}

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with an answer."""
        return policy is not None and has_answer(rollout, policy)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Tensor]:
        """Ask for the gold and the own answer without the question, and for the own one with it."""
        assert policy is not None
        blanks = [rollout.prompt.replace(rollout.problem.question, "").strip() for rollout in rollouts]
        prompts = {text: tuple(policy.encode_prompt(text)) for text in dict.fromkeys(blanks)}
        own, gold = ([question(rollout, policy, whose) for rollout in rollouts] for whose in ("own", "gold"))
        alone = [
            replace(q, prompt_ids=prompts[text]) for every in (gold, own) for q, text in zip(every, blanks, strict=True)
        ]
        right, same, before = ask(policy, [*alone, *own]).greedy.double().view(3, -1)
        return {"cot_alone_accuracy": right, "cot_alone_agreement": same.where(before.bool(), float("nan"))}
