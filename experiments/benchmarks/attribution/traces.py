"""What is attributed: traces of a policy, with the answer that it gave itself, be it right or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atmanrl.errors import UserError
from atmanrl.faithfulness.answers import has_answer, question, separator
from atmanrl.models.policy import Policy
from atmanrl.probe.target import Target, target
from atmanrl.rollouts import Rollout, RolloutDataModule, traces
from atmanrl.tasks import WordProblems

TASK_SEED = 13
"""Of the problems that are reported. The benchmark was developed on seeds 11 and 12; no method has a tuned setting."""
LENGTH = 224
"""Most tokens of a completion."""


@dataclass(frozen=True)
class Trace:
    """One reasoning with the policy's own answer.

    Attributes:
        problem: id of the problem; intervals are drawn over problems.
        correct: whether the answer is right; None where the file does not say.
        explained: what methods attribute: the answer's tokens without what ends them, as in Eq. 2 of the paper.
        scored: what is measured when tokens go: the answer's tokens with what ends them.
        end: white space at the end of the reasoning, which belongs to the delimiter and is never taken away.

    Example:
        `Trace("p/1", True, Target((1,), (5, 6, 3), (9,), (7,)), Target((1,), (5, 6, 3), (9,), (7, 2)), end=(3,))`
    """

    problem: str
    correct: bool | None
    explained: Target
    scored: Target
    end: tuple[int, ...]

    @property
    def length(self) -> int:
        """How many tokens are ranked."""
        return len(self.scored.cot_ids) - len(self.end)


def sample(policy: Policy, problems: int, seed: int = TASK_SEED) -> list[Rollout]:
    """Return one rollout for each of some test problems of the laptop policy's own task."""
    task = WordProblems(train_size=1, test_size=problems, seed=seed, instruction="")
    data = RolloutDataModule(task, test_problems=problems, eval_samples=1, max_new_tokens=LENGTH)
    data.setup("test")
    return data.answer(policy, data.rows["test"], "test", 0, 1).rollouts


def read(path: Path, policy: Policy, limit: int | None = None, each: int | None = None) -> list[Rollout]:
    """Return the rollouts of a file of traces (see `atmanrl.rollouts.traces`).

    Args:
        path: the file.
        policy: whose tokenizer reads them.
        limit: how many traces are read; None reads all.
        each: how many of one problem are kept, the first of them; None keeps all.

    Raises:
        TraceError: the message names the file, the line and the field.
    """
    rollouts = [
        traces.from_json(trace, row, policy, f"{path}, line {line}")
        for row, (line, trace) in enumerate(traces.read(path, limit))
    ]
    seen: Counter[str] = Counter()
    kept = []
    for rollout in rollouts:
        seen[rollout.problem.id] += 1
        if each is None or seen[rollout.problem.id] <= each:
            kept.append(rollout)
    return kept


def usable(rollouts: Sequence[Rollout], policy: Policy) -> list[Trace]:
    """Return the traces of rollouts that have an answer and a reasoning of at least two tokens.

    Raises:
        UserError: there is none.
    """
    chosen = []
    for rollout in rollouts:
        if not (rollout.can_be_probed and has_answer(rollout, policy)):
            continue
        explained = target(rollout, policy.tokenizer, None, rollout.parts.answer or "")
        trace = Trace(
            rollout.problem.id, rollout.correct, explained, question(rollout, policy, "own"),
            separator(rollout, policy),
        )  # fmt: skip
        if trace.length > 1:
            chosen.append(trace)
    if not chosen:
        raise UserError("none of the traces has a reasoning and an answer; give others by --traces.")
    return chosen
