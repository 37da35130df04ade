"""`WordProblems`: a seeded generator of GSM8K-shaped stories, for a policy small enough to train on a laptop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from random import Random

from atmanrl.tasks import reasoning, stories
from atmanrl.tasks.answers import same_number
from atmanrl.tasks.base import INSTRUCTION, Problem, Split, Task, TaskError

TEST_SHARE = 10
"""Per cent of all possible problems that belong to the test split."""


def split_of(key: str) -> Split:
    """The split that a problem belongs to, by a hash of its key alone.

    Train and test share no problem because no key has two splits, whatever the seed, the sizes and the wording.
    """
    bucket = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") % 100
    return "test" if bucket < TEST_SHARE else "train"


class WordProblems(Task):
    """Stories of two to four steps with + - x and exact division, some about money.

    Every problem of a split is different from every other, not only in its wording (see `stories.Story.key`), and the
    splits share none (see `split_of`).

    Args:
        train_size: number of training problems.
        test_size: number of test problems.
        seed: another seed, other problems.
        instruction: see `Task`; the laptop policy was trained without one.

    Raises:
        TaskError: a size below 1, or more problems asked for than there are.
    """

    def __init__(
        self, train_size: int = 20_000, test_size: int = 2_000, seed: int = 0, instruction: str = INSTRUCTION
    ) -> None:
        super().__init__(instruction)
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < 1:
                raise TaskError(f"WordProblems: {name} is {size}; give at least 1.")
        self.sizes: dict[Split, int] = {"train": train_size, "test": test_size}
        self.seed = seed

    def problems(self, split: Split) -> Sequence[Problem]:
        """The problems of `split`, in the order in which they were drawn."""
        return list(self._draw(split))

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Whether the number in `answer` is the gold number."""
        return same_number(answer, problem.gold)

    def _draw(self, split: Split) -> Iterator[Problem]:
        if split not in self.sizes:
            raise TaskError(f"WordProblems has the splits train and test, not {split!r}.")
        rng = Random(f"atmanrl word problems/{self.seed}/{split}")
        seen: set[str] = set()
        misses = 0
        while len(seen) < self.sizes[split]:
            story = rng.choice(stories.STORIES)(rng)
            if story.key in seen or split_of(story.key) != split:
                misses += 1
                if misses > 100 * self.sizes[split] + 10_000:
                    raise TaskError(
                        f"WordProblems: found only {len(seen)} different {split} problems; ask for fewer than "
                        f"{self.sizes[split]}."
                    )
                continue
            yield Problem(
                id=f"wordproblems/{self.seed}/{split}/{len(seen)}",
                question=story.text,
                gold=str(story.steps[-1].result),
                solution=reasoning.write(story.steps, rng),
            )
            seen.add(story.key)
