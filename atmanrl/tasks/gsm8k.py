"""GSM8K, grade school mathematics: 7,473 training and 1,319 test problems, solved step by step to one number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from atmanrl.tasks.answers import parse_number, same_number
from atmanrl.tasks.base import INSTRUCTION, Problem, Split, Task, TaskError
from atmanrl.tasks.rows import data_folder, file_rows, hub_rows

ANSWER_MARK = "####"
"""What stands before the answer in the data; the policy is taught another, by default one `#` longer."""

HUB_NAME = "openai/gsm8k"
SIZES: dict[Split, int] = {"train": 7473, "test": 1319}
"""Problems of the data set of that name."""

_ADVICE = "download train.jsonl and test.jsonl from github.com/openai/grade-school-math and give their folder"
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # <<48/2=24>>: what the data's authors had a calculator fill in


class GSM8K(Task):
    """The paper's task: an answer is right when its first number is the gold number.

    Args:
        path: a folder that holds the original `train.jsonl` and `test.jsonl` (one JSON object a line with `question`
            and `answer`). None: the data comes through `datasets` instead, which caches it.
        hub_name: with `path` None, the name on the Hugging Face hub, or a local folder in a form that
            `datasets.load_dataset(hub_name, "main")` reads.
        instruction: appended to the question after a blank line.
        max_steps: only problems whose solution has at most so many lines, each of them a step; None takes all.

    Raises:
        TaskError: `max_steps` is below 1.
    """

    def __init__(
        self,
        path: str | None = None,
        hub_name: str = HUB_NAME,
        instruction: str = INSTRUCTION,
        max_steps: int | None = None,
    ) -> None:
        super().__init__(instruction)
        if max_steps is not None and max_steps < 1:
            raise TaskError(f"GSM8K: max_steps is {max_steps}; give at least 1, or null for all problems.")
        self.max_steps = max_steps
        self.path = path
        self.hub_name = hub_name

    def problems(self, split: Split) -> list[Problem]:
        """Return the problems of a split in the data's order, with ids that count its rows from 0 (`gsm8k/train/17`).

        Gold answers lose their thousands commas, solutions their calculator annotations and the line of the answer.

        Raises:
            TaskError: there is no such split, or the data is missing, unreachable, empty or malformed.
        """
        if split not in get_args(Split):
            raise TaskError(f"GSM8K has no split {split!r}: use one of {', '.join(get_args(Split))}.")
        if self.path is None:
            source, rows = f"{self.hub_name}, split {split}", hub_rows(self.hub_name, "main", split, _ADVICE)
        else:
            file = _split_file(self.path, split)
            source, rows = str(file), file_rows(file)
        problems = [_problem(row, f"gsm8k/{split}/{index}", where) for index, (where, row) in enumerate(rows)]
        if not problems:
            raise TaskError(f"{source}: holds no rows; download GSM8K's {split} split again.")
        if self.max_steps is None:
            return problems
        short = [p for p in problems if p.solution is not None and p.solution.count("\n") < self.max_steps]
        if not short:
            raise TaskError(f"{source}: no solution has at most {self.max_steps} lines; give a larger max_steps.")
        return short

    def size(self, split: Split) -> int | None:
        """Return how many problems a split holds: those of the user's folder, or the hub's own."""
        if self.path is not None:
            return len(self.problems(split))
        if self.max_steps is not None:
            return None
        return SIZES[split] if self.hub_name == HUB_NAME else None

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Return whether the first number in `answer` equals the gold number, however either is written."""
        return same_number(answer, problem.gold)

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer` holds a number."""
        return parse_number(answer) is not None


def _split_file(path: str, split: Split) -> Path:
    """The file of a split in the user's folder."""
    file = data_folder(path, "GSM8K's train.jsonl and test.jsonl") / f"{split}.jsonl"
    if not file.is_file():
        raise TaskError(f"{file}: does not exist; put GSM8K's {file.name} there, or give another --data.task.path.")
    return file


def _problem(row: object, problem_id: str, where: str) -> Problem:
    """Turn a row of the data into a problem; `where` begins every error message."""
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    if ANSWER_MARK not in answer:
        raise TaskError(f"{where}: `answer` holds no {ANSWER_MARK}; it must end in a line such as '{ANSWER_MARK} 72'.")
    solution, gold = solution_and_gold(answer)
    if parse_number(gold) is None:
        raise TaskError(f"{where}: {gold!r} after {ANSWER_MARK} is not a number; write the answer in digits.")
    return Problem(problem_id, question, gold, solution or None)


def solution_and_gold(answer: str) -> tuple[str, str]:
    """Return what stands before and behind the last `####`: without calculator annotations, without thousands commas."""
    solution, _, gold = answer.rpartition(ANSWER_MARK)
    # "#####" in a user's own data leaves a "#"
    return _ANNOTATION.sub("", solution.rstrip("#")).strip(), gold.strip().replace(",", "")


def _text(row: object, field: str, where: str) -> str:
    """A field of the row that must hold text."""
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{where}: has no text in `{field}`; each row needs `question` and `answer`.")
    return text.strip()
