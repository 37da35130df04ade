"""Several tasks as one."""

from collections import Counter

import pytest

from atmanrl.rollouts import RolloutDataModule
from atmanrl.tasks import MixtureTask, MultiHop, Problem, Task, TaskError, WordProblems
from atmanrl.tasks.mixture import by_task


class Echo(Task):
    """Its answers are right when they name the problem as this task knows it."""

    def __init__(self, size, instruction):
        super().__init__(instruction)
        self.size = size

    def problems(self, split):
        return [Problem(f"echo/{split}/{i}", f"{i}?", str(i)) for i in range(self.size)]

    def is_right(self, answer, problem):
        return answer == problem.id

    def can_read(self, answer, problem):
        return answer in ("read", problem.id)


def mixture(weights=None, **options):
    tasks = {"few": Echo(30, "Be brief."), "many": Echo(100, ""), "some": Echo(60, "Think.")}
    return MixtureTask(tasks, weights, **options)


def counts(task, split="train"):
    return Counter(p.id.partition("/")[0] for p in task.problems(split))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, (30, 30, 30)),
        ({"few": 1, "many": 2, "some": 1}, (30, 60, 30)),
        ({"few": 0.1, "many": 0.7, "some": 0.2}, (14, 100, 29)),
        ({"few": 3, "many": 3, "some": 6}, (30, 30, 60)),
    ],
)
def test_shares_without_repetition(weights, expected):
    task = mixture(weights)
    for split in ("train", "test"):
        assert counts(task, split) == dict(zip(task.tasks, expected, strict=True))
        ids = [p.id for p in task.problems(split)]
        assert len(set(ids)) == len(ids)


def test_the_draw_is_by_seed():
    ids = [[p.id for p in mixture(seed=seed).problems("train")] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    many = [p.id for p in mixture().problems("train") if p.id.startswith("many/")]
    assert many != [f"many/echo/train/{i}" for i in range(30)]
    assert set(many) <= {f"many/echo/train/{i}" for i in range(100)}


def test_each_problem_is_its_own_tasks():
    task = mixture()
    few, some = task.problems("train")[0], task.problems("train")[-1]
    assert task.prompt(few).endswith("\n\nBe brief.") and task.prompt(some).endswith("\n\nThink.")
    own = few.id.removeprefix("few/")
    assert task.is_right(own, few) and not task.is_right(few.id, few)
    assert task.can_read(own, few) and task.can_read("read", few) and not task.can_read("other", few)
    assert (task.name_of(few), task.name_of(some)) == ("few", "some")
    assert by_task(task, [some, few, some]) == {"few": [1], "many": [], "some": [0, 2]}
    assert by_task(Echo(1, ""), [few]) == {}
    with pytest.raises(TaskError, match="'else/1' is of none of its tasks few, many, some"):
        task.is_right("1", Problem("else/1", "?", "1"))


def test_it_feeds_a_run_with_its_held_out_slice():
    tasks = {"stories": WordProblems(train_size=40, test_size=5), "hops": MultiHop(train_size=40, test_size=5)}
    data = RolloutDataModule(MixtureTask(tasks), val_problems=20)
    data.setup("fit")
    train, val = (dict(data.rows[name]) for name in ("train", "val"))
    assert len(train) == 60 and len(val) == 20 and not {p.id for p in train.values()} & {p.id for p in val.values()}
    assert {p.id.partition("/")[0] for p in val.values()} == set(tasks)
    problem = next(p for p in train.values() if p.id.startswith("hops/"))
    assert data.task.is_right(f" {problem.gold}", problem) and not data.task.is_right("x", problem)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"few": 1, "many": 1}, "weights has few, many; give one for each of few, many, some"),
        ({"few": 1, "many": 1, "some": 0}, r"weights\.some is 0; give a number above 0"),
        ({"few": 1, "many": float("inf"), "some": 1}, r"weights\.many is inf"),
    ],
)
def test_wrong_weights(weights, said):
    with pytest.raises(TaskError, match=said):
        mixture(weights)


def test_wrong_tasks():
    with pytest.raises(TaskError, match=r"weights\.some is too small for one train problem"):
        mixture({"few": 1, "many": 1, "some": 0.001}).problems("train")
    for tasks in ({}, {"a/b": Echo(1, "")}, {"": Echo(1, "")}, {"a\x1b": Echo(1, "")}, {"\udc00": Echo(1, "")}):
        with pytest.raises(TaskError, match="at least one task, and names that print and have no slash"):
            MixtureTask(tasks)
