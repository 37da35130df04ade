"""Which answers a task can judge, right or wrong."""

import pytest

from atmanrl.tasks import GSM8K, MMLU, MultiHop, Problem, Task, WordProblems


class Plain(Task):
    def problems(self, split):
        return []

    def is_right(self, answer, problem):
        return answer == problem.gold


NUMBERS = [GSM8K, WordProblems, MultiHop]


@pytest.mark.parametrize(
    ("tasks", "readable", "not_readable"),
    [(NUMBERS, ["72", "$1,000 or so"], ["seventy-two", ""]), ([MMLU], ["(b)", "A."], ["72", ""]),
     ([Plain], ["anything"], [" \n", ""])],
)  # fmt: skip
def test_readable_answers(tasks, readable, not_readable):
    problem = Problem("a/1", "?", "none of these")
    for task in tasks:
        assert all(task().can_read(answer, problem) for answer in readable)
        assert not any(task().can_read(answer, problem) for answer in not_readable)
