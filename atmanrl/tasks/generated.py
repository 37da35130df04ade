"""What generated tasks have in common: a seeded stream of different problems, in splits that share none."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from random import Random
from typing import Any, ClassVar

from atmanrl.tasks import reasoning
from atmanrl.tasks.answers import parse_number, same_number
from atmanrl.tasks.base import Problem, Split, Task, TaskError
from atmanrl.tasks.stories import Step

TEST_SHARE = 10
"""Per cent of all possible problems that belong to the test split."""


def split_of(key: str, test_share: int = TEST_SHARE) -> Split:
    """Return the split that a problem belongs to, by a hash of its key alone.

    Train and test share no problem because no key has two splits, whatever the seed, the sizes and the wording.

    Args:
        key: what makes it this problem and no other.
        test_share: per cent of all keys that belong to the test split.
    """
    bucket = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") % 100
    return "test" if bucket < test_share else "train"


class GeneratedTask(Task):
    """Problems drawn from a seed, each worked in steps to a number.

    A subclass draws the numbers of a problem (`draw`) and puts them into words (`tell`). Drawn numbers have a `key`: two
    of the same key are the same problem, whatever their wording.

    Args:
        stream: names the stream of random numbers; another one, other problems.
        train_size: number of training problems.
        test_size: number of test problems.
        seed: part of the problems' ids.
        instruction: see `Task`.

    Attributes:
        advice: ends the error message when there are fewer problems than asked for.

    Raises:
        TaskError: a size below 1, or more problems asked for than there are.
    """

    advice: ClassVar[str] = ""

    def __init__(self, stream: str, train_size: int, test_size: int, seed: int, instruction: str) -> None:
        super().__init__(instruction)
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise TaskError(f"{type(self).__name__}: {name} is {size}; give at least 1.")
        self.stream, self.seed = stream, seed
        self.sizes: dict[Split, int] = {"train": train_size, "test": test_size}

    @abstractmethod
    def draw(self, rng: Random) -> Any:
        """Draw the numbers of one problem, with their `key`."""

    @abstractmethod
    def tell(self, drawn: Any, rng: Random) -> tuple[str, tuple[Step, ...]]:
        """Return the question, and the steps to its answer."""

    def place(self, steps: tuple[Step, ...], number: int) -> str:
        """Return the end of the id of the split's problem `number`."""
        return str(number)

    def problems(self, split: Split) -> Sequence[Problem]:
        """Return the problems of `split`, in the order in which they were drawn."""
        return list(self._draw(split))

    def size(self, split: Split) -> int:
        """Return how many problems a split holds."""
        return self.sizes[split]

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Return whether the first number in `answer` is the gold number."""
        return same_number(answer, problem.gold)

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Return whether `answer` holds a number."""
        return parse_number(answer) is not None

    def _draw(self, split: Split) -> Iterator[Problem]:
        name = type(self).__name__
        if split not in self.sizes:
            raise TaskError(f"{name} has the splits train and test, not {split!r}.")
        rng = Random(f"{self.stream}/{split}")
        seen: set[str] = set()
        misses = 0
        while len(seen) < self.sizes[split]:
            drawn = self.draw(rng)
            if drawn.key in seen or split_of(drawn.key) != split:
                misses += 1
                if misses > 100 * self.sizes[split] + 10_000:
                    raise TaskError(
                        f"{name}: found only {len(seen)} different {split} problems; ask for fewer than "
                        f"{self.sizes[split]}{self.advice}."
                    )
                continue
            question, steps = self.tell(drawn, rng)
            yield Problem(
                id=f"{name.lower()}/{self.seed}/{split}/{self.place(steps, len(seen))}",
                question=question,
                gold=str(steps[-1].result),
                solution=reasoning.write(steps, rng),
            )
            seen.add(drawn.key)
