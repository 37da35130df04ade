"""How much is done on a GPU and on a CPU, and how little to try the scripts."""

from __future__ import annotations

from dataclasses import dataclass

ARMS = ("outcome", "saliency")
"""Rewards: outcome alone, and outcome + saliency."""
AFTERWARDS = 50.0
"""Seconds of an arm that are kept for its evaluation."""


@dataclass(frozen=True)
class Scale:
    """Sizes of all steps.

    Attributes:
        probed: the task whose questions the instrument takes.
        delimiter: that the instrument's traces are written with: what the untrained model writes by itself.
        questions: of the instrument, each with a gold solution and `own` samples of the model.
        draws: samples of a question at `temperature`, of which those with a delimiter are taken.
        asked: questions that are sampled at a time.
        chunk: questions that are solved at a time, by every solver in turn.
        solver_steps: of every mask (the paper's 200).
        warm_steps: optimizer steps of the warm start, on batches of `warm_batch` solutions.
        stories: word problems among the warm start's examples.
        held_out: training problems on which candidates for the task are measured, with `held_samples` each.
        queries, group: problems of an update and rollouts of each.
        new_tokens: longest completion.
        test_problems, test_samples: of the evaluation before and after.
        measured: test problems whose first rollout is measured for faithfulness.
        paced: updates after which their number is decided, by the time that they have taken.
        updates: at most.
        seeds: of the runs of each arm.
        problems: of GSM8K's training split, the first of the file; None takes all.

    Example:
        `TINY.questions` is 2.
    """

    probed: str = "gsm8k"
    delimiter: str = "The answer is"
    questions: int = 16
    own: int = 3
    draws: int = 24
    asked: int = 32
    temperature: float = 0.7
    chunk: int = 4
    solver_steps: int = 200
    warm_steps: int = 450
    warm_batch: int = 32
    stories: int = 2000
    held_out: int = 128
    held_samples: int = 4
    queries: int = 8
    group: int = 8
    new_tokens: int = 224
    test_problems: int = 150
    test_samples: int = 4
    measured: int = 60
    paced: int = 3
    updates: int = 300
    seeds: tuple[int, ...] = (0, 1, 2)
    problems: int | None = None


FULL = Scale()
ON_CPU = Scale(chunk=1, draws=12, asked=1)
"""The instrument question by question, in hours: 16 questions, 64 traces."""
TINY = Scale(
    probed="word_problems", delimiter="#####", questions=2, own=1, draws=6, chunk=1, solver_steps=5, warm_steps=2,
    warm_batch=4, stories=40, held_out=2, held_samples=2, queries=2, group=2, new_tokens=100, test_problems=2,
    test_samples=2, measured=2, paced=2, updates=3, seeds=(0,), problems=80,
)  # fmt: skip
