"""The plugin point `Task`: what is asked, and when an answer is right."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from atmanrl.errors import UserError
from atmanrl.io.jsonl import is_text

DELIMITER = "#####"
"""What stands between the reasoning and the answer by default, for every task (the paper, section 3.1)."""

ANSWER_FORMAT = "{answer_format}"
"""Where an instruction says how the answer is marked; `data.delimiter` decides what stands there."""

INSTRUCTION = f"Reason step by step. {ANSWER_FORMAT}"
"""What an instruction-tuned policy is told, by default."""

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
        columns: whatever else the data has of it, by name (test cases, a difficulty); reward functions receive it.

    Example:
        `Problem("gsm8k/train/17", "Weng earns $12 an hour. How much ...?", "10", "She earns 12 / 60 = ...")`
    """

    id: str
    question: str
    gold: str
    solution: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


def after_delimiter(delimiter: str, answer: str, example: str) -> str:
    """Tell a policy to write its answer after a delimiter.

    Args:
        delimiter: such as `#####`.
        answer: what is asked for, in words: `the final answer`.
        example: of an answer: `42`.
    """
    return f"Then write {delimiter} followed by {answer} alone, for example: {delimiter} {example}"


class Task(ABC):
    """A source of problems and the judge of their answers.

    Subclass it in a module of your own and name the class in YAML by its `class_path`; nothing needs to be registered.

    Args:
        instruction: appended to the question after a blank line. `{answer_format}` in it becomes a sentence on how the
            answer is marked, which follows `data.delimiter`. An empty text for a policy that was trained on bare
            questions, such as the laptop policy.

    Attributes:
        answer_name, answer_example: what that sentence calls an answer, and an answer as an example.
    """

    answer_name: ClassVar[str] = "the final answer"
    answer_example: str = "42"
    _answer_format: Callable[[str, str], str] = staticmethod(partial(after_delimiter, DELIMITER))

    def __init__(self, instruction: str = INSTRUCTION) -> None:
        self.instruction = instruction

    @abstractmethod
    def problems(self, split: Split) -> Sequence[Problem]:
        """Return all problems of a split, in a fixed order; called once per process.

        Raises:
            TaskError: the data cannot be read.
        """

    def size(self, split: Split) -> int | None:
        """Return how many problems a split holds, or None where only a download would tell."""
        return None

    @abstractmethod
    def is_right(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer`, the text that followed the delimiter, gives the problem's gold answer."""

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer`, right or wrong, can be judged as it is written; here, any text that is not blank."""
        return bool(answer.strip())

    def prompt(self, problem: Problem) -> str:
        """Return the user's turn: the question and, if there is one, the instruction."""
        if not self.instruction:
            return problem.question
        marked = self._answer_format(self.answer_name, self.answer_example)
        return f"{problem.question}\n\n{self.instruction.replace(ANSWER_FORMAT, marked)}"

    def ask_for(self, answer_format: Callable[[str, str], str]) -> None:
        """Take over how the answer is marked; the data module calls this before it asks for a prompt.

        Args:
            answer_format: makes a sentence of `answer_name` and `answer_example`, such as `Splitter.instruction`.
        """
        self._answer_format = answer_format


def readable_problems(task: Task, split: Split) -> Sequence[Problem]:
    """Return a task's problems, each checked: its texts can be tokenized and written.

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
