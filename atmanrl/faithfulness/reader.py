"""A reader: does the reasoning still speak to somebody else, and is it still language?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.faithfulness.answers import ask, has_answer, question
from atmanrl.faithfulness.base import RolloutMeasure
from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import Column
from atmanrl.models.policy import Policy
from atmanrl.models.teacher_forcing import answer_logprobs
from atmanrl.rollouts import traces
from atmanrl.rollouts.batch import Rollout

_READERS: dict[tuple[str, str], Policy] = {}
"""Readers by path and device: loaded on first use, so that metrics copy and pickle without them."""


class Reader(RolloutMeasure):
    """Another policy, such as the warm start, reads prompt and reasoning and answers.

    `reader_accuracy` is 1 where greedy decoding by the reader, after P and C, gives the gold answer;
    `reader_agreement` where it gives the policy's own answer. `cot_nats` is the mean over the T tokens of C of
    -log p_reader(token | P, the tokens before it), in nats a token: how strange the reasoning is to the reader.
    `cot_perplexity` is e to the power of its mean over rollouts, and is 1 at least.

    Three teacher-forced forward passes of the reader a rollout. It is loaded whole by every process, in the policy's
    place, and reads the policy's tokens where both have one vocabulary, else the text.

    Args:
        path: the reader, as a policy's path.
        stages: when it runs; see `RolloutMetric`.

    Raises:
        UserError: no path is given.
    """

    uses_policy = True
    keys = ("reader_accuracy", "reader_agreement", "cot_nats")
    columns = {
        "reader_accuracy": Column("reader right %", True, "points"),
        "cot_perplexity": Column("perplexity of CoT", False, "count", ""),
    }

    def __init__(self, path: str, stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        if not path:
            raise UserError("Reader.path is empty; give the policy that reads, such as that of the warm start.")
        self.path = path

    def setting(self) -> dict[str, object]:
        """Who reads."""
        return {"reader": self.path}

    def measure(self, rollouts: Sequence[Rollout], policy: Policy | None = None) -> dict[str, list[float]]:
        """Measure the rollouts in the reader's tokens, which are the policy's own where both have one vocabulary."""
        assert policy is not None
        reader = _reader(self.path, str(policy.device))
        if reader.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            rollouts = [_retokenized(rollout, reader) for rollout in rollouts]
        return super().measure(rollouts, reader)

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with an answer that fit into the reader's context."""
        return policy is not None and has_answer(rollout, policy)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Tensor]:
        """Let the reader, which is the policy here, answer and read the reasoning."""
        assert policy is not None
        questions = [question(rollout, policy, whose) for whose in ("gold", "own") for rollout in rollouts]
        right, same = ask(policy, questions).greedy.double().view(2, -1)
        nats = torch.full((len(rollouts),), torch.nan, dtype=torch.float64)
        reasoned = [k for k, rollout in enumerate(rollouts) if rollout.cot_ids]
        prompts, cots = ([getattr(rollouts[k], name) for k in reasoned] for name in ("prompt_ids", "cot_ids"))
        for k, logprobs in zip(reasoned, answer_logprobs(policy, prompts, [()] * len(cots), cots), strict=True):
            nats[k] = -logprobs.double().mean()
        return {"reader_accuracy": right, "reader_agreement": same, "cot_nats": nats}

    def compute(self) -> dict[str, Tensor]:
        """The means, and the perplexity."""
        means = super().compute()
        return means | {"cot_perplexity": means["cot_nats"].exp()}


def _reader(path: str, device: str) -> Policy:
    """The reader, loaded on first use."""
    if (path, device) not in _READERS:
        _READERS[path, device] = Policy(path).build().to(device).eval()
    return _READERS[path, device]


def _retokenized(rollout: Rollout, reader: Policy) -> Rollout:
    """The rollout's texts in the reader's tokens, the answer's end left out."""
    trace = {
        "problem_id": rollout.problem.id, "prompt": rollout.prompt, "completion": rollout.parts.text,
        "gold": rollout.problem.gold, "sample": rollout.sample,
    }  # fmt: skip
    return traces.from_json(trace, rollout.row, reader, rollout.problem.id, rollout.parts.splitter)
