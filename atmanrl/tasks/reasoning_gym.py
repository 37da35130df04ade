"""`ReasoningGym`: the generators of the package reasoning-gym, with their own scorers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

from atmanrl.tasks.base import INSTRUCTION, Problem, Split, Task, TaskError
from atmanrl.tasks.generated import split_of
from atmanrl.tasks.gym_worker import CHUNK, FULL_SCORE
from atmanrl.worker import FunctionError, FunctionTimeoutError, LoadError, Worker

TEST_SHARE = 25
"""Per cent of all possible questions that belong to the test split."""

MISSES = 500
"""So many draws in a row without a new question end the drawing."""

_BATCH = 25  # draws that the process is asked for at once
_DRAW_SECONDS = 1800.0  # for a batch; the slowest generators take seconds for a problem
_SCORE_SECONDS = 10.0
_LONGEST_EXAMPLE = 200  # characters of an answer that the instruction shows


class ReasoningGym(Task):
    """Problems of one of reasoning-gym's generators, over a hundred of them: algebra, logic, games, graphs, code.

    An answer is right by the generator's own scorer, which gives 0 to 1: only full marks are right, unless `least_score`
    says less. Answers need not be numbers: they may have several lines, or be JSON. Needs `pip install
    'atmanrl[reasoning-gym]'`.

    A problem's `columns` hold the generator's `entry` (question, answer, metadata), for reward functions. Its gold answer
    is the generator's; one of many right ones, where the generator names one; and empty where it names none
    (`rush_hour`, `boxnet`): such a problem is judged, but not probed.

    Args:
        name: of the generator, such as `spell_backward`.
        config: fields of its configuration, such as `{min_word_len: 4}`; the others keep their defaults.
        train_size: number of training problems.
        test_size: number of test problems.
        seed: another seed, other problems.
        least_score: an answer is right from this score on, above 0 and at most 1.
        instruction: see `Task`. The example in it is an answer of a problem of neither split.

    Raises:
        TaskError: reasoning-gym is not installed, there is no such generator or field, or a number is out of its range.
    """

    def __init__(
        self,
        name: str,
        config: dict[str, Any] | None = None,
        train_size: int = 2000,
        test_size: int = 500,
        seed: int = 0,
        least_score: float = FULL_SCORE,
        instruction: str = INSTRUCTION,
    ) -> None:
        super().__init__(instruction)
        for option, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise TaskError(f"ReasoningGym: {option} is {size}; give at least 1.")
        if not 0 < least_score <= FULL_SCORE:
            raise TaskError(f"ReasoningGym: least_score is {least_score}; give a number above 0 and at most 1.")
        if find_spec("reasoning_gym") is None:
            raise TaskError("ReasoningGym needs the package reasoning-gym; pip install 'atmanrl[reasoning-gym]'.")
        self.name, self.config, self.seed, self.least_score = name, dict(config or {}), seed, least_score
        self.sizes: dict[Split, int] = {"train": train_size, "test": test_size}
        self.worker = Worker(
            "atmanrl.tasks.gym_worker.Generator",
            {"name": name, "config": self.config},
            environment={"PYTHONHASHSEED": "0"},
        )
        if fault := self._asked("fault"):
            raise TaskError(f"ReasoningGym: {fault}")
        example = next(self._drawn("example"))
        self._example_question = example.question
        if example.gold:
            self.answer_example = example.gold if len(example.gold) <= _LONGEST_EXAMPLE else "..."

    def problems(self, split: Split) -> Sequence[Problem]:
        """Return the problems of a split, in the order in which they were drawn.

        No question stands twice in them. A question belongs to a split by a hash of its text alone, whatever the seed, the
        sizes and the configuration; and each split is drawn from seeds of its own.

        Raises:
            TaskError: there is no such split, or the generator has fewer different questions than asked for.
        """
        if split not in self.sizes:
            raise TaskError(f"ReasoningGym has the splits train and test, not {split!r}.")
        problems: list[Problem] = []
        seen = {self._example_question}
        misses = 0
        for problem in self._drawn(split):
            if problem.question in seen or split_of(problem.question, TEST_SHARE) != split:
                misses += 1
                if misses == MISSES:
                    raise TaskError(
                        f"ReasoningGym: {self.name} gave only {len(problems)} different {split} problems, and no other in "
                        f"{MISSES} draws more; ask for fewer than {self.sizes[split]} by {split}_size, or widen its config."
                    )
                continue
            misses = 0
            seen.add(problem.question)
            problems.append(problem)
            if len(problems) == self.sizes[split]:
                break
        return problems

    def size(self, split: Split) -> int:
        """Return how many problems a split holds."""
        return self.sizes[split]

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Return whether the generator's scorer gives the answer `least_score` or more."""
        score = self.score(answer, problem)
        return score is not None and score >= self.least_score

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Return whether the scorer can read the answer."""
        return bool(answer.strip()) and self.score(answer, problem) is not None

    def score(self, answer: str, problem: Problem) -> float | None:
        """Return the generator's score of an answer, from 0 to 1.

        Returns:
            None where the scorer cannot read the answer, or needs more than ten seconds.
        """
        entry = problem.columns["entry"]
        if entry["answer"] is not None and problem.gold != str(entry["answer"]).strip():
            entry = {**entry, "answer": problem.gold}  # majority@k asks whether two answers are the same in this way
        try:
            return self._asked("score", _SCORE_SECONDS, answer=answer, entry=entry)
        except (FunctionTimeoutError, FunctionError) as error:
            what = "took too long" if isinstance(error, FunctionTimeoutError) else f"failed ({error})"
            warnings.warn(f"{self.name}'s scorer {what} on an answer to {problem.id}, which is wrong so.", stacklevel=2)
            return None

    def _drawn(self, stream: str) -> Iterator[Problem]:
        """Draw problems of a stream, `train`, `test` or `example`, without an end."""
        number, failures = 0, 0
        while True:
            seed, first = _seed(f"{self.name}/{self.seed}/{stream}/{number // CHUNK}"), number % CHUNK
            count = 1 if stream == "example" else _BATCH
            for drawn in self._asked("draw", _DRAW_SECONDS, seed=seed, first=first, count=count):
                number += 1
                if isinstance(drawn, str):
                    failures += 1
                    if failures == MISSES:
                        raise TaskError(
                            f"ReasoningGym: {self.name} failed at {MISSES} draws in a row; the last: {drawn}"
                        )
                    continue
                failures = 0
                entry, gold = drawn
                name = f"reasoning_gym/{self.name}/{self.seed}/{stream}/{number - 1}"
                yield Problem(name, entry["question"], gold, columns={"entry": entry})

    def _asked(self, method: str, seconds: float = _DRAW_SECONDS, **arguments: Any) -> Any:
        """Call a method of `gym_worker.Generator` in its process."""
        try:
            return self.worker({"method": method, "arguments": arguments}, seconds).value
        except LoadError as error:
            raise TaskError(
                f"ReasoningGym: reasoning-gym cannot be used: {error}. (It runs in a process of its own: a script that "
                "makes this task does so beneath `if __name__ == '__main__':`.)"
            ) from error


def _seed(text: str) -> int:
    """Return a seed that follows from a text, so far from all others that no generator meets them by counting on."""
    return int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") >> 1
