"""GSM8K, grade school mathematics: 7,473 training and 1,319 test problems, solved step by step to one number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from atmanrl.tasks.answers import parse_number, same_number
from atmanrl.tasks.base import INSTRUCTION, Problem, Split, Task, TaskError

ANSWER_MARK = "####"
"""What stands before the answer in the data; the policy is taught `DELIMITER` instead, which is one `#` longer."""

_ANNOTATION = re.compile(r"<<[^<>]*>>")  # <<48/2=24>>: what the data's authors had a calculator fill in


class GSM8K(Task):
    """The paper's task: an answer is right when its first number is the gold number.

    Args:
        path: a folder that holds the original `train.jsonl` and `test.jsonl` (one JSON object a line with `question`
            and `answer`). None: the data comes through `datasets` instead, which caches it.
        hub_name: with `path` None, the name on the Hugging Face hub, or a local folder in a form that
            `datasets.load_dataset(hub_name, "main")` reads.
        instruction: appended to the question after a blank line.
    """

    def __init__(self, path: str | None = None, hub_name: str = "openai/gsm8k", instruction: str = INSTRUCTION) -> None:
        super().__init__(instruction)
        self.path = path
        self.hub_name = hub_name

    def problems(self, split: Split) -> list[Problem]:
        """All problems of a split in the data's order, with ids that count its rows from 0 (`gsm8k/train/17`).

        Gold answers lose their thousands commas, solutions their calculator annotations and the line of the answer.

        Raises:
            TaskError: there is no such split, or the data is missing, unreachable, empty or malformed.
        """
        if split not in get_args(Split):
            raise TaskError(f"GSM8K has no split {split!r}: use one of {', '.join(get_args(Split))}.")
        if self.path is None:
            source, rows = f"{self.hub_name}, split {split}", _hub_rows(self.hub_name, split)
        else:
            file = _split_file(self.path, split)
            source, rows = str(file), _file_rows(file)
        problems = [_problem(row, f"gsm8k/{split}/{index}", where) for index, (where, row) in enumerate(rows)]
        if not problems:
            raise TaskError(f"{source}: holds no rows; download GSM8K's {split} split again.")
        return problems

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Whether the first number in `answer` equals the gold number, however either is written."""
        return same_number(answer, problem.gold)


def _split_file(path: str, split: Split) -> Path:
    """The file of a split in the user's folder."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise TaskError(f"{folder}: {state}; --data.task.path takes the folder of GSM8K's train.jsonl and test.jsonl.")
    file = folder / f"{split}.jsonl"
    if not file.is_file():
        raise TaskError(f"{file}: does not exist; put GSM8K's {file.name} there, or give another --data.task.path.")
    return file


def _file_rows(file: Path) -> Iterator[tuple[str, object]]:
    """Each row of a JSONL file behind its place, `file, line 3`; blank lines are passed over."""
    try:
        lines = file.read_bytes().split(b"\n")  # bytes, so that a broken character can be told by its line, too
    except OSError as error:
        raise TaskError(f"{file}: cannot be read ({error.strerror}); check its permissions.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))  # some editors on Windows begin a file with a byte order mark
        except UnicodeDecodeError as error:
            raise TaskError(f"{where}: is not UTF-8; save the file in that encoding.") from error
        except ValueError as error:
            raise TaskError(f"{where}: is not valid JSON ({error}); each line must be one JSON object.") from error
        yield where, row


def _hub_rows(hub_name: str, split: Split) -> Iterator[tuple[str, object]]:
    """Each row of a dataset behind its place; the first row is row 0, as the hub's viewer counts."""
    import datasets  # takes a second or two, which users of local files need not wait

    try:
        rows: Any = datasets.load_dataset(hub_name, "main", split=split)
    except Exception as error:  # network, hub, cache and file format each fail with classes of their own
        reason = (str(error).splitlines() or [""])[0]
        raise TaskError(
            f"{hub_name}: cannot be loaded through `datasets` ({type(error).__name__}: {reason}); download train.jsonl "
            "and test.jsonl from github.com/openai/grade-school-math and give their folder as --data.task.path."
        ) from error
    for number, row in enumerate(rows):
        yield f"{hub_name}, split {split}, row {number}", row


def _problem(row: object, problem_id: str, where: str) -> Problem:
    """Turn a row of the data into a problem; `where` begins every error message."""
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    reasoning, mark, gold = answer.rpartition(ANSWER_MARK)
    if not mark:
        raise TaskError(f"{where}: `answer` holds no {ANSWER_MARK}; it must end in a line such as '{ANSWER_MARK} 72'.")
    gold = gold.strip().replace(",", "")
    if parse_number(gold) is None:
        raise TaskError(f"{where}: {gold!r} after {ANSWER_MARK} is not a number; write the answer in digits.")
    solution = _ANNOTATION.sub("", reasoning.rstrip("#")).strip()  # "#####" in a user's own data leaves a "#"
    return Problem(problem_id, question, gold, solution or None)


def _text(row: object, field: str, where: str) -> str:
    """A field of the row that must hold text."""
    text = row.get(field) if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{where}: has no text in `{field}`; each row needs `question` and `answer`.")
    return text.strip()
