"""Several tasks as one, mixed by weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from atmanrl.io import escape
from atmanrl.tasks.base import Problem, Split, Task, TaskError


class MixtureTask(Task):
    """Problems of several tasks, each with a share by its weight.

    No problem stands in a split twice, so that held-out problems are never trained on: the mixture is as large as the
    task that runs short first allows, and of the others as many problems are drawn, by seed, as their shares ask for.

    Args:
        tasks: tasks by names of your choice. A problem's id begins with the name of its task: `math/gsm8k/train/17`.
        weights: of each task, above 0; shares are weights over their sum. None: all weigh the same.
        seed: of the draw.

    Raises:
        TaskError: no tasks, a name with a slash or one that does not print, or weights that do not fit the tasks.
    """

    def __init__(self, tasks: dict[str, Task], weights: dict[str, float] | None = None, seed: int = 0) -> None:
        super().__init__(instruction="")  # each task has its own
        if not tasks or any(not escape.is_line(name) or "/" in name for name in tasks):
            raise TaskError("MixtureTask: tasks needs at least one task, and names that print and have no slash.")
        weights = dict.fromkeys(tasks, 1.0) if weights is None else weights
        if weights.keys() != tasks.keys():
            raise TaskError(f"MixtureTask: weights has {', '.join(weights)}; give one for each of {', '.join(tasks)}.")
        for name, weight in weights.items():
            if not 0 < weight < math.inf:
                raise TaskError(f"MixtureTask: weights.{name} is {weight}; give a number above 0.")
        self.tasks, self.weights, self.seed = tasks, weights, seed

    def problems(self, split: Split) -> list[Problem]:
        """Return the mixture's problems, task by task, each task's in the order in which it has them.

        Raises:
            TaskError: a task's data cannot be read, or a share is less than one problem.
        """
        every = {name: task.problems(split) for name, task in self.tasks.items()}
        mixed: list[Problem] = []
        for name, count in self._counts({name: len(problems) for name, problems in every.items()}).items():
            problems = every[name]
            if count == 0:
                raise TaskError(
                    f"MixtureTask: weights.{name} is too small for one {split} problem beside those of the other tasks."
                )
            drawn = sorted(Random(f"{self.seed}/{split}/{name}").sample(range(len(problems)), count))
            mixed += [replace(problems[i], id=f"{name}/{problems[i].id}") for i in drawn]
        return mixed

    def size(self, split: Split) -> int | None:
        """Return how many problems a split holds, or None where one of the tasks cannot tell."""
        sizes = {name: task.size(split) for name, task in self.tasks.items()}
        known = {name: size for name, size in sizes.items() if size is not None}
        return sum(self._counts(known).values()) if known.keys() == sizes.keys() else None

    def is_right(self, answer: str, problem: Problem) -> bool:
        """Judge as the problem's own task does."""
        task, own = self._of(problem)
        return task.is_right(answer, own)

    def can_read(self, answer: str, problem: Problem) -> bool:
        """Read as the problem's own task does."""
        task, own = self._of(problem)
        return task.can_read(answer, own)

    def prompt(self, problem: Problem) -> str:
        """Return the prompt of the problem's own task."""
        task, own = self._of(problem)
        return task.prompt(own)

    def ask_for(self, answer_format: Callable[[str, str], str]) -> None:
        """Let every task of the mixture ask for it."""
        for task in self.tasks.values():
            task.ask_for(answer_format)

    def name_of(self, problem: Problem) -> str:
        """Return the name of the problem's task.

        Raises:
            TaskError: the problem is of no task here.
        """
        name = problem.id.partition("/")[0]
        if name not in self.tasks:
            raise TaskError(f"MixtureTask: problem {problem.id!r} is of none of its tasks {', '.join(self.tasks)}.")
        return name

    def _counts(self, sizes: dict[str, int]) -> dict[str, int]:
        """Return how many problems are drawn of each task, by how many it has."""
        size = min(sizes[name] / weight for name, weight in self.weights.items())
        return {name: min(sizes[name], round(size * self.weights[name])) for name in self.tasks}

    def _of(self, problem: Problem) -> tuple[Task, Problem]:
        """The problem's task, and the problem as that task knows it."""
        name = self.name_of(problem)
        return self.tasks[name], replace(problem, id=problem.id.removeprefix(f"{name}/"))


def by_task(task: Task | None, problems: Sequence[Problem]) -> dict[str, list[int]]:
    """Return the numbers of each task's problems in a mixture, by the task's name; empty for any other task."""
    if not isinstance(task, MixtureTask):
        return {}
    numbers: dict[str, list[int]] = {name: [] for name in task.tasks}
    for i, problem in enumerate(problems):
        numbers[task.name_of(problem)].append(i)
    return numbers
