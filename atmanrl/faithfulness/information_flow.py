"""Which way the answer's information takes: through the reasoning or past it (Jia et al. 2026, arXiv 2605.24286)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from atmanrl.faithfulness.answers import has_answer, question
from atmanrl.faithfulness.base import Answer, RolloutMeasure
from atmanrl.faithfulness.divergences import js, kl
from atmanrl.metrics.base import Stage
from atmanrl.metrics.columns import Column
from atmanrl.models.batching import cheapest_batches, pass_tokens, positions, right_padded
from atmanrl.models.logits import logits_at
from atmanrl.models.numerics import widened
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import LOGITS_AT_ONCE
from atmanrl.probe.attention import Bias, attention_bias, attention_hook, choose_backend
from atmanrl.probe.guard import check
from atmanrl.probe.module import frozen
from atmanrl.probe.target import Target
from atmanrl.rollouts.batch import Rollout

BLOCKED = -1e9
"""What is added to a score that is to have no weight: e to this power is 0 in every dtype, and no sum becomes -inf."""

PASSES = ("full", "without_reasoning", "via_reasoning", "without_prompt")
"""What the answer sees; see `InformationFlow`."""

BATCH_TOKENS = 4096
"""Most tokens, padding counted, in one forward pass."""


class InformationFlow(RolloutMeasure):
    """What the answer loses when ways to it are blocked in the attention of every layer.

    Four forward passes over prompt P, reasoning C, delimiter and answer, teacher-forced: `full` as it is;
    `without_reasoning`, delimiter and answer do not attend to C; `via_reasoning`, they do not attend to P, but C does;
    `without_prompt`, nothing behind P attends to P. With the distributions p of the next token, means over the N tokens of
    the answer and the end, in nats a token:

    - `flow_necessity` = KL(p_full || p_without_reasoning): what the answer needs of C.
    - `flow_direct` = KL(p_full || p_via_reasoning), the direct effect: what it takes from P past C.
    - `flow_leakage` = KL(p_via_reasoning || p_without_prompt): what the states of C carry of P to the answer that the
      words of C do not say.

    `flow_necessity_js`, `flow_direct_js` and `flow_leakage_js` are the Jensen-Shannon divergences of the same pairs, at
    most ln 2: KL has no bound where the full distribution is sure of its token.

    Args:
        answer: whose tokens are read: the policy's own, or the gold ones.
        stages: when it runs; see `RolloutMetric`.

    Raises:
        ProbeError: when it runs: the model's attention takes no bias (see `probe.guard`).
    """

    uses_policy = True
    keys = (
        "flow_necessity", "flow_direct", "flow_leakage", "flow_necessity_js", "flow_direct_js", "flow_leakage_js",
    )  # fmt: skip
    columns = {
        "flow_necessity": Column("CoT necessity", True, "count", "nats a token"),
        "flow_direct": Column("direct effect", False, "count", "nats a token"),
    }

    def __init__(self, answer: Answer = "own", stages: Sequence[Stage] | None = None) -> None:
        super().__init__(stages)
        self.answer: Answer = answer

    def can_measure(self, rollout: Rollout, policy: Policy | None) -> bool:
        """Those with an answer."""
        return policy is not None and has_answer(rollout, policy)

    def values(self, rollouts: Sequence[Rollout], policy: Policy | None) -> Mapping[str, Tensor]:
        """Run the four passes over all rollouts."""
        assert policy is not None
        questions = [question(rollout, policy, self.answer) for rollout in rollouts]
        distinct, flows = list(dict.fromkeys(questions)), dict[Target, Tensor]()
        with hooked(policy):
            for batch in _batches(distinct, policy):
                part = [distinct[i] for i in batch]
                flows |= zip(part, _divergences(policy, part), strict=True)
        values = torch.stack([flows[each] for each in questions])
        return dict(zip(self.keys, values.unbind(dim=1), strict=True))


@contextmanager
def hooked(policy: Policy, backend: str | None = None) -> Iterator[None]:
    """The policy frozen and in eval mode, with an attention that takes a bias; no gradient is recorded.

    Args:
        policy: the model.
        backend: of its attention; None takes the best that it can run.

    Raises:
        ProbeError: there is none.
    """
    # a trainer may validate in inference mode, in which the guard could take no gradient
    with torch.inference_mode(False), frozen(policy.model):
        with attention_hook(policy.model, backend or choose_backend(policy.model)):
            check(policy.model)
            with torch.no_grad():
                yield


def _batches(questions: Sequence[Target], policy: Policy) -> list[list[int]]:
    """Places of questions whose passes, and whose answers' logits, fit into memory."""
    logits = max(len(each.answer_ids) for each in questions) * policy.vocabulary_size * len(PASSES)
    most = max(1, LOGITS_AT_ONCE // logits)
    batches = cheapest_batches([len(PASSES) * len(each) for each in questions], BATCH_TOKENS, pass_tokens(policy.model))
    return [batch[k : k + most] for batch in batches for k in range(0, len(batch), most)]


def _divergences(policy: Policy, questions: Sequence[Target]) -> Iterator[Tensor]:
    """For each question a tensor `[6]`, in the order of `InformationFlow.keys`."""
    rows = [each for each in questions for _ in PASSES]
    # nothing is asked about what follows the last token, so it is not read
    sequences = [[*q.prompt_ids, *q.tail[:-1]] for q in rows]
    ids, mask = right_padded(sequences, policy.pad_id)
    width, ends = ids.shape[1], mask.sum(dim=1, keepdim=True)
    before = mask.bool() & (torch.arange(width) >= ends - torch.tensor([len(q.answer_ids) for q in rows])[:, None])
    device = policy.device
    bias = torch.zeros(len(rows), width, width)
    for k, q in enumerate(questions):
        for row, name in enumerate(PASSES):
            bias[len(PASSES) * k + row] = BLOCKED * blocked(q, name, width)
    with attention_bias(Bias(bias.to(device), row=0, column=0)):
        logits = logits_at(
            policy.model, before.to(device), input_ids=ids.to(device), attention_mask=mask.to(device),
            position_ids=positions(mask).to(device), use_cache=False,
        )  # fmt: skip
    logprobs = logits.to(widened(logits.dtype)).log_softmax(-1)
    for q, part in zip(
        questions, torch.split(logprobs, [len(PASSES) * len(q.answer_ids) for q in questions]), strict=True
    ):
        full, without, via, unasked = part.view(len(PASSES), len(q.answer_ids), -1)
        pairs = ((full, without), (full, via), (via, unasked))
        yield torch.stack([measure(*pair).mean() for measure in (kl, js) for pair in pairs]).cpu()


def blocked(question: Target, name: str, width: int) -> Tensor:
    """Which rows do not see which columns in a pass, `[width, width]` boolean."""
    prompt, reasoned = len(question.prompt_ids), len(question.prompt_ids) + len(question.cot_ids)
    row, column = torch.arange(width)[:, None], torch.arange(width)[None]
    return {
        "full": (row < 0) & (column < 0),
        "without_reasoning": (row >= reasoned) & (column >= prompt) & (column < reasoned),
        "via_reasoning": (row >= reasoned) & (column < prompt),
        "without_prompt": (row >= prompt) & (column < prompt),
    }[name]
