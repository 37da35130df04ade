"""Comprehensiveness and sufficiency of the tokens that rank highest (ERASER, DeYoung et al. 2020, arXiv 1911.03429)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.faithfulness.answers import ask, has_answer, question, separator
from atmanrl.faithfulness.base import Answer, RolloutMeasure
from atmanrl.faithfulness.rankings import by_attention, by_chance, by_saliency
from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import Column
from atmanrl.models.policy import Policy
from atmanrl.probe.module import MaskProbe
from atmanrl.probe.target import Target
from atmanrl.rollouts.batch import Rollout

PERCENTS = (1, 5, 10, 20, 50)
"""Shares of the reasoning's tokens that are taken away, or kept."""

RANKINGS = ("saliency", "attention", "random")
NAMES = ("comprehensiveness", "sufficiency")


class Erasure(RolloutMeasure):
    """Does a saliency name the tokens that the answer needs? ERASER's two measures, beside attention and chance.

    Of the T tokens of the reasoning C (without the white space before the delimiter, which always stays) the
    ceil(q T / 100) that rank highest are r_q. With a the policy's own answer or the gold one:

    - comprehensiveness at q % = p(a | P, C) - p(a | P, C without r_q): high where r_q was needed;
    - sufficiency at q % = p(a | P, C) - p(a | P, r_q alone): low where r_q is enough.

    Tokens are deleted, and the others move up. `comprehensiveness_{ranking}` and `sufficiency_{ranking}` are means over q in
    {1, 5, 10, 20, 50} (eqs. 1 to 3 of the paper, whose mean also counts q = 0), differences of probabilities from -1 to 1;
    `comprehensiveness_{ranking}_at_{q}` and `sufficiency_{ranking}_at_{q}` are the single ones. The rankings are
    `saliency`; `attention`, that of the positions that predict the answer, over all heads and layers; and `random`.

    31 teacher-forced forward passes a rollout, one with its attention, and those of the probe.

    Args:
        probe: what gives the saliency: a `MaskProbe` with orientation `restored` and any solver or attribution; None
            takes the adaptive solver.
        answer: whose probability is measured, and which the saliency explains.
        seed: of the random ranking.
        stages: when it runs; see `RolloutMetric`.

    Raises:
        UserError: the probe's orientation is `printed`, in which the tokens that matter rank lowest.
    """

    uses_policy = True
    keys = tuple(
        [f"{name}_{ranking}" for name in NAMES for ranking in RANKINGS]
        + [f"{name}_{ranking}_at_{q}" for name in NAMES for ranking in RANKINGS for q in PERCENTS]
    )
    columns = {
        f"{name}_{ranking}": Column(f"{name} ({ranking})", name == "comprehensiveness", "points")
        for name in NAMES
        for ranking in RANKINGS
    }

    def __init__(
        self,
        probe: MaskProbe | None = None,
        answer: Answer = "own",
        seed: int = 0,
        stages: Sequence[Stage] | None = None,
    ) -> None:
        super().__init__(stages)
        self.probe = MaskProbe(solver="adaptive") if probe is None else probe
        if self.probe.orientation != "restored":
            raise UserError("Erasure.probe ranks the tokens that matter highest; give it orientation: restored.")
        self.answer: Answer = answer
        self.seed = seed

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with a reasoning and an answer."""
        return policy is not None and rollout.can_be_probed and has_answer(rollout, policy)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Tensor]:
        """Rank each reasoning's tokens in three ways; ask for the answer without the highest, and after them alone."""
        assert policy is not None
        whole = [question(rollout, policy, self.answer) for rollout in rollouts]
        ends = [separator(rollout, policy) for rollout in rollouts]
        scores = {
            "saliency": by_saliency(rollouts, policy, self.probe, self.answer),
            "attention": by_attention(whole, policy),
            "random": by_chance(rollouts, self.seed),
        }
        erased = [
            part
            for name in NAMES
            for ranking in RANKINGS
            for q, end, each in zip(whole, ends, scores[ranking], strict=True)
            for part in erasures(q, end, each, keep=name == "sufficiency")
        ]
        p = ask(policy, [*whole, *erased]).probabilities
        shape = (len(NAMES), len(RANKINGS), len(rollouts), len(PERCENTS))
        drops = p[: len(whole), None] - p[len(whole) :].view(shape)
        by_key = {}
        for i, name in enumerate(NAMES):
            for j, ranking in enumerate(RANKINGS):
                by_key[f"{name}_{ranking}"] = drops[i, j].mean(dim=1)
                by_key |= {f"{name}_{ranking}_at_{q}": drops[i, j, :, k] for k, q in enumerate(PERCENTS)}
        return by_key


def erasures(whole: Target, end: Sequence[int], scores: Sequence[float], keep: bool) -> list[Target]:
    """The question after a reasoning without its highest tokens, or with them alone, for each share of `PERCENTS`.

    Args:
        whole: with the whole reasoning.
        end: the tokens at the reasoning's end that always stay.
        scores: of the reasoning's tokens; of equal ones the first ranks highest.
        keep: whether the highest tokens are kept, and not taken away.
    """
    tokens = whole.cot_ids[: len(whole.cot_ids) - len(end)]
    order = torch.tensor(list(scores[: len(tokens)])).argsort(descending=True, stable=True).tolist()
    parts = []
    for percent in PERCENTS:
        highest = set(order[: math.ceil(percent * len(tokens) / 100)])
        kept = [token for place, token in enumerate(tokens) if (place in highest) == keep]
        parts.append(replace(whole, cot_ids=(*kept, *end)))
    return parts
