"""MMLU's rows, from the user's folder or the hub, each checked field by field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atmanrl.tasks.base import TaskError
from atmanrl.tasks.letters import LETTERS
from atmanrl.tasks.mmlu_subjects import CATEGORY_OF
from atmanrl.tasks.rows import data_folder, file_rows, hub_rows

AUXILIARY = "auxiliary_train"
"""The part of the data whose rows have no subject."""

NAMES = {"dev": ("dev",), "val": ("val", "validation"), AUXILIARY: (AUXILIARY,), "test": ("test",)}
"""Part of the data -> what its file may be called; the last name is its split's on the hub."""

_ADVICE = "give a folder that holds MMLU's dev.jsonl, val.jsonl and test.jsonl"


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the data that has been checked.

    Attributes:
        part: `dev`, `val`, `test` or `auxiliary_train`.
        number: its place among the part's rows, from 0.
        subject: empty in `auxiliary_train`.
        question, choices: as they stand there, without white space around them.
        gold: the number of the right choice, from 0.

    Example:
        `Question("val", 17, "virology", "Which ...?", ("A vaccine", "A virus", "A drug", "A test"), gold=1)`
    """

    part: str
    number: int
    subject: str
    question: str
    choices: tuple[str, ...]
    gold: int

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it this question and no other, whatever the order of the choices, capitals and white space."""
        return (_plain(self.question), *sorted(map(_plain, self.choices)))

    @property
    def gold_stands_twice(self) -> bool:
        """Whether another choice reads like the right one, so that one of two equal choices would count as wrong."""
        return self.choices.count(self.choices[self.gold]) > 1


def read_rows(path: str | None, hub_name: str, part: str) -> Iterator[Question]:
    """Yield all rows of a part of the data, from the folder `path` or, where that is None, from the hub.

    Raises:
        TaskError: the data is missing, unreachable, empty or malformed; the message names the place.
    """
    number = -1
    rows = hub_rows(hub_name, "all", NAMES[part][-1], _ADVICE) if path is None else file_rows(_part_file(path, part))
    for number, (where, row) in enumerate(rows):
        yield _checked(row, part, number, where)
    if number < 0:
        raise TaskError(f"{path or hub_name}: its {part} split holds no rows; download it again.")


def _part_file(path: str, part: str) -> Path:
    """The file of a part of the data in the user's folder."""
    folder = data_folder(path, "MMLU's dev.jsonl, val.jsonl and test.jsonl")
    for name in NAMES[part]:
        if (file := folder / f"{name}.jsonl").is_file():
            return file
    raise TaskError(
        f"{folder / part}.jsonl: does not exist; put MMLU's {part} rows there, or give another --data.task.path."
    )


def _checked(row: object, part: str, number: int, where: str) -> Question:
    """A row whose fields are what they must be; `where` begins every error message."""
    fields: dict[str, Any] = row if isinstance(row, dict) else {}
    subject = "" if part == AUXILIARY else fields.get("subject")
    if part != AUXILIARY and (not isinstance(subject, str) or subject not in CATEGORY_OF):
        raise TaskError(f"{where}: `subject` is {subject!r}, which is none of MMLU's 57 (high_school_physics, ...).")
    question = fields.get("question")
    if not isinstance(question, str) or not question.strip():
        raise TaskError(f"{where}: has no text in `question`.")
    choices = fields.get("choices")
    if not isinstance(choices, list) or len(choices) != len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise TaskError(f"{where}: `choices` must be a list of {len(LETTERS)} texts, not {choices!r:.80}.")
    answer = fields.get("answer")
    if isinstance(answer, str) and len(answer) == 1 and answer in LETTERS:
        answer = LETTERS.index(answer)
    if type(answer) is not int or not 0 <= answer < len(LETTERS):  # a bool is an int, too
        raise TaskError(f"{where}: `answer` is {answer!r}; it must be 0 to 3, or A to D.")
    return Question(part, number, str(subject), question.strip(), tuple(choice.strip() for choice in choices), answer)


def _plain(text: str) -> str:
    """A text without its capitals and its white space beyond single spaces."""
    return " ".join(text.casefold().split())
