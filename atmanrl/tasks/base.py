"""The plugin point `Task`: what is asked, and when an answer is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from atmanrl.errors import UserError
from atmanrl.jsonl import is_text

DELIMITER = "#####"
"""What stands between the reasoning and the answer, for every task (the paper, section 3.1)."""

INSTRUCTION = (
    f"Reason step by step. Then write {DELIMITER} followed by the final answer alone, for example: {DELIMITER} 42"
)
"""What an instruction-tuned policy is told about the format of its answer."""

Split = Literal["train", "test"]


class TaskError(UserError):
    """A task's data cannot be used; the message names the file, the row and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its gold answer.

    Attributes:
        id: unique within the task, stable between runs (`gsm8k/train/17`).
        question: the text of the question, without any instruction.
        gold: the gold answer as it is written after the delimiter (`72`).
        solution: a worked reasoning (without delimiter and answer), for the supervised warm start; None if there is none.
        columns: whatever else the data has of it, by name (test cases, a difficulty); reward functions are given it.
    """

    id: str
    question: str
    gold: str
    solution: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Task(ABC):
    """A source of problems and the judge of their answers.

    Subclass it in a module of your own and name the class in YAML by its `class_path`; nothing needs to be registered.

    Args:
        instruction: appended to the question after a blank line. An empty text for a policy that was trained
            on bare questions, such as the laptop policy.
    """

    def __init__(self, instruction: str = INSTRUCTION) -> None:
        self.instruction = instruction

    @abstractmethod
    def problems(self, split: Split) -> Sequence[Problem]:
        """All problems of a split, in a fixed order; called once per process.

        Raises:
            TaskError: the data cannot be read.
        """

    @abstractmethod
    def is_right(self, answer: str, problem: Problem) -> bool:
        """Whether `answer`, the text that followed the delimiter, gives the problem's gold answer."""

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Whether `answer`, right or wrong, is written so that it can be judged; here, any text that is not blank."""
        return bool(answer.strip())

    def prompt(self, problem: Problem) -> str:
        """The user's turn: the question and, if there is one, the instruction."""
        return f"{problem.question}\n\n{self.instruction}" if self.instruction else problem.question


def readable_problems(task: Task, split: Split) -> Sequence[Problem]:
    """A task's problems, all of whose texts can be tokenized and written; checked before the first one is drawn.

    Raises:
        TaskError: a text holds half of a surrogate pair, is far too long or is none; or the data cannot be read.
    """
    problems = task.problems(split)
    for problem in problems:
        for name in ("id", "question", "gold", "solution"):
            value = getattr(problem, name)
            if not is_text(value) and not (name == "solution" and value is None):
                raise TaskError(
                    f"{type(task).__name__}: `{name}` of {split} problem {problem.id!a:.80} is no text that can be used "
                    f"({value!a:.80}); mend the task's data."
                )
    return problems
