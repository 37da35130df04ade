"""`WordProblems`: reproducible problems, honest arithmetic, and splits that share nothing."""

import operator
import re
from random import Random

import pytest

from atmanrl.tasks import Problem, TaskError, WordProblems, wordproblems
from atmanrl.tasks.generated import split_of
from atmanrl.tasks.money_stories import shopping
from atmanrl.tasks.stories import Step, Story

SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def sums(problem: Problem) -> tuple[tuple[str, ...], ...]:
    """The equations of a solution, as they are written: (left, sign, right, result)."""
    return tuple(SUM.findall(problem.solution))


@pytest.fixture(scope="module")
def task() -> WordProblems:
    return WordProblems(train_size=3000, test_size=300)


@pytest.fixture(scope="module")
def problems(task) -> list[Problem]:
    return [*task.problems("train"), *task.problems("test")]


def test_the_seed_decides(task):
    assert task.problems("train") == WordProblems(train_size=3000, test_size=1).problems("train")
    # a longer list goes on where a shorter one ends, so that sizes may be changed without another problem 0
    assert task.problems("train")[:50] == WordProblems(train_size=50).problems("train")
    other = WordProblems(train_size=3000, seed=1).problems("train")
    ours = {p.question for p in task.problems("train")}
    assert sum(p.question in ours for p in other) < 30


def test_ids_and_questions_are_unique(problems):
    assert len({p.id for p in problems}) == len({p.question for p in problems}) == 3300
    assert problems[7].id == "wordproblems/0/train/7" and problems[3007].id == "wordproblems/0/test/7"


def test_every_sum_is_right(problems):
    for problem in problems:
        for left, sign, right, result in sums(problem):
            assert OPERATIONS[sign](int(left), int(right)) == int(result), problem  # a remainder would show in "/"
            assert int(result) >= 0


def test_two_to_four_steps_lead_to_the_gold_answer(problems):
    steps = [len(sums(p)) for p in problems]
    assert set(steps) == {2, 3, 4}
    assert all(sums(p)[-1][3] == p.gold for p in problems)
    assert {sign for p in problems for _, sign, _, _ in sums(p)} == set(OPERATIONS)
    # nothing but sums: each written equation is one of the steps
    assert all(p.solution.count("=") == count for p, count in zip(problems, steps, strict=True))


def test_every_number_of_a_solution_is_given_or_computed(problems):
    for problem in problems:
        known = set(re.findall(r"\d+", problem.question))
        for left, _, right, result in sums(problem):
            assert left in known and right in known, problem
            known.add(result)


def test_no_key_is_in_both_splits_whatever_the_seed(monkeypatch):
    keys: dict[str, str] = {}

    def noted(tell):
        def wrapped(rng):
            story = tell(rng)
            keys[story.text] = story.key
            return story

        return wrapped

    monkeypatch.setattr(wordproblems, "STORIES", tuple(map(noted, wordproblems.STORIES)))
    train = [p for seed in (0, 1) for p in WordProblems(train_size=2000, seed=seed).problems("train")]
    test = [p for seed in (0, 1) for p in WordProblems(test_size=400, seed=seed).problems("test")]
    assert not {keys[p.question] for p in train} & {keys[p.question] for p in test}
    assert not {sums(p) for p in train} & {sums(p) for p in test}
    assert {split_of(keys[p.question]) for p in train} == {"train"}
    first = train[:2000]
    assert len({keys[p.question] for p in first}) == len({sums(p) for p in first}) == 2000
    assert len({key.split("/")[0] for key in keys.values()}) == len(wordproblems.STORIES)


def test_the_wording_is_no_part_of_the_key():
    def sums_of(story):
        # the goods of a shopping may be told, and so be added, in either order
        return story.kind, frozenset(frozenset(re.findall(r"\d+|[-+*/]", step.expression)) for step in story.steps)

    told = [tell(Random(f"{tell.__name__}/{seed}")) for tell in wordproblems.STORIES for seed in range(400)]
    found = {s.key: sums_of(s) for s in told}
    assert all(found[s.key] == sums_of(s) for s in told)


def test_goods_in_the_other_order_are_the_same_problem():
    told = [shopping(Random(seed)) for seed in range(20_000)]
    orders: dict[str, set[tuple[str, ...]]] = {}
    for story in told:
        orders.setdefault(story.key, set()).add(tuple(step.expression for step in story.steps[:2]))
    both = [told_so for told_so in orders.values() if len(told_so) > 1]
    assert len(both) > 100
    assert all(len(pair) == 2 and {pair[::-1] for pair in found} == found for found in both for pair in found)


def test_no_sum_of_one_split_is_in_the_other_with_its_terms_in_another_order():
    def terms(problem):
        cost = re.findall(r"(\d+) \* (\d+) = (\d+)", problem.solution)
        return frozenset(cost), problem.gold

    def bought(task, split):
        return {
            terms(p)
            for p in task.problems(split)
            if "In all" in p.solution or " + " in p.solution and "*" in p.solution
        }

    task = WordProblems(train_size=4000, test_size=800)
    train, test = ({t for t in bought(task, split) if len(t[0]) == 2} for split in ("train", "test"))
    assert len(test) > 40
    assert not train & test


def test_about_a_tenth_of_all_problems_is_test():
    share = sum(split_of(f"boxes/{i}") == "test" for i in range(5000)) / 5000
    assert 0.085 < share < 0.115


@pytest.mark.parametrize("sizes", [{"train_size": 0}, {"test_size": 0}, {"train_size": -5}])
def test_sizes_below_one(sizes):
    with pytest.raises(TaskError, match=next(iter(sizes))):
        WordProblems(**sizes)


def test_more_problems_than_there_are(monkeypatch):
    def tiny(rng):
        number = rng.randint(1, 60)
        steps = tuple(Step("", f"{number + k} + 1", number + k + 1, "") for k in range(2))
        return Story("tiny", (number,), f"{number}?", steps)

    monkeypatch.setattr(wordproblems, "STORIES", (tiny,))
    count = sum(split_of(f"tiny/{number}") == "train" for number in range(1, 61))
    assert 1 < count < 60
    assert len(WordProblems(train_size=count).problems("train")) == count
    with pytest.raises(TaskError, match=f"only {count} different train problems; ask for fewer than 60"):
        WordProblems(train_size=60).problems("train")


def test_an_unknown_split():
    with pytest.raises(TaskError, match="'validation'"):
        WordProblems().problems("validation")


def test_answers_are_judged_as_numbers(task):
    problem = Problem("x", "?", "12")
    assert all(task.is_right(text, problem) for text in ("12", " 12 apples", "$12.", "12.0"))
    assert not any(task.is_right(text, problem) for text in ("", "twelve", "13", "1 2", "-12"))
    assert task.prompt(problem).startswith("?\n\n") and WordProblems(instruction="").prompt(problem) == "?"
