"""MMLU: 57 subjects of school, university and professional life, asked in multiple choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from difflib import get_close_matches
from typing import get_args

from atmanrl.tasks.base import INSTRUCTION, Problem, Split, Task, TaskError
from atmanrl.tasks.letters import LETTERS, parse_letter, same_letter
from atmanrl.tasks.mmlu_rows import AUXILIARY, Question, read_rows
from atmanrl.tasks.mmlu_subjects import CATEGORIES, CATEGORY_OF

HUB_NAME = "cais/mmlu"
SIZES: dict[Split, int] = {"train": 1778, "test": 13932}
"""Problems of the data set of that name, without those that are dropped."""


class MMLU(Task):
    """Four choices, one letter: an answer is right when it names the right letter and no other (see `tasks.letters`).

    The training split is `dev` and `val` (1,816 rows, all 57 subjects); `auxiliary` adds the 99,842 questions of other
    exams, which have no subject. That is an option so that a split does not depend on where the data comes from. Some
    rows are dropped, before any choice of subjects, so that no such choice brings one back; `dropped` counts them:

    - a question whose right choice stands among its choices twice;
    - the same question again within a split: the first one in the data's order stays, whatever its subject;
    - a training question that also stands in the test split, under whichever subject.

    Two questions are the same when question and choices are, but for the order of the choices, capitals and white
    space.

    Args:
        path: a folder that holds `dev.jsonl`, `val.jsonl` and `test.jsonl` (and `auxiliary_train.jsonl`): one JSON
            object a line with `subject`, `question`, `choices` (4 texts) and `answer` (0 to 3, or A to D). None: the
            data comes through `datasets`, which caches it.
        hub_name: with `path` None, the name on the Hugging Face hub, or a local folder in a form that
            `datasets.load_dataset(hub_name, "all")` reads.
        subjects: problems of these subjects only (`high_school_physics`).
        categories: problems of these categories only: STEM, humanities, social sciences, other. With `subjects`: the
            problems of either.
        auxiliary: whether the training split also holds `auxiliary_train`; not together with subjects or categories.
        instruction: appended to question and choices after a blank line.

    Attributes:
        dropped: how many rows were dropped, by reason, for each split that was read.

    Raises:
        TaskError: an unknown subject or category, or both a choice of subjects and `auxiliary`.
    """

    answer_name = "the letter of the right choice"
    answer_example = "C"

    def __init__(
        self,
        path: str | None = None,
        hub_name: str = HUB_NAME,
        subjects: list[str] | None = None,
        categories: list[str] | None = None,
        auxiliary: bool = False,
        instruction: str = INSTRUCTION,
    ) -> None:
        super().__init__(instruction)
        self.path, self.hub_name, self.auxiliary = path, hub_name, auxiliary
        self.subjects = None if subjects is None and categories is None else _chosen(subjects or [], categories or [])
        if self.subjects is not None and auxiliary:
            raise TaskError("MMLU: auxiliary_train has no subjects; leave out auxiliary, or subjects and categories.")
        self.dropped: dict[Split, Counter[str]] = {}

    def problems(self, split: Split) -> list[Problem]:
        """Return the problems of a split in the data's order; their ids count a part's rows (`mmlu/val/virology/17`).

        Raises:
            TaskError: there is no such split, or the data is missing, unreachable, empty or malformed.
        """
        if split not in get_args(Split):
            raise TaskError(f"MMLU has no split {split!r}: use one of {', '.join(get_args(Split))}.")
        parts = ["test"] if split == "test" else ["dev", "val", *([AUXILIARY] if self.auxiliary else [])]
        tested: set[tuple[str, ...]] = set()
        if split == "train":
            tested = {row.key for row in read_rows(self.path, self.hub_name, "test")}
        seen: set[tuple[str, ...]] = set()
        dropped: Counter[str] = Counter()
        problems = []
        for row in (row for part in parts for row in read_rows(self.path, self.hub_name, part)):
            key = row.key
            if row.gold_stands_twice:
                dropped["right choice twice"] += 1
            elif key in tested:
                dropped["in the test split"] += 1
            elif key in seen:
                dropped["same question again"] += 1
            elif self.subjects is None or row.subject in self.subjects:
                problems.append(_problem(row))
            seen.add(key)
        self.dropped[split] = dropped
        if not problems:
            raise TaskError(
                f"{self.path or self.hub_name}: holds no {split} problem of these subjects that is not a duplicate; "
                "choose others."
            )
        return problems

    def size(self, split: Split) -> int | None:
        """Return how many problems a split holds: those of the user's folder, or of the hub's own, all subjects together."""
        if self.path is not None:
            return len(self.problems(split))
        whole = self.hub_name == HUB_NAME and self.subjects is None and not (self.auxiliary and split == "train")
        return SIZES[split] if whole else None

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer` names the right letter and no other; the choices' own texts are passed over."""
        return same_letter(answer, problem.gold, problem.columns.get("choices", ()))

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer` names one letter."""
        return parse_letter(answer, problem.columns.get("choices", ())) is not None


def _problem(row: Question) -> Problem:
    """The question with its four choices below it, and the letter of the right one."""
    choices = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, row.choices, strict=True)]
    place = f"{row.subject}/{row.number}" if row.subject else str(row.number)
    question = "\n".join([row.question, *choices])
    return Problem(f"mmlu/{row.part}/{place}", question, LETTERS[row.gold], columns={"choices": row.choices})


def _chosen(subjects: Iterable[str], categories: Iterable[str]) -> frozenset[str]:
    """The subjects that are meant, by name and by category."""
    by_name = {name.casefold(): members for name, members in CATEGORIES.items()}
    chosen: set[str] = set()
    for category in categories:
        if (name := category.casefold().replace("_", " ")) not in by_name:
            raise TaskError(f"MMLU has no category {category!r}: use one of {', '.join(CATEGORIES)}.")
        chosen.update(by_name[name])
    for subject in subjects:
        if subject not in CATEGORY_OF:
            near = get_close_matches(subject.casefold().replace(" ", "_"), CATEGORY_OF, n=3)
            hint = f"perhaps {' or '.join(near)}" if near else "they are named like high_school_physics"
            raise TaskError(f"MMLU has no subject {subject!r}: {hint}.")
        chosen.add(subject)
    if not chosen:
        raise TaskError("MMLU: subjects and categories are empty; leave them out to take all.")
    return frozenset(chosen)
