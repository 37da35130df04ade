import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.tasks import MultiHop, Problem, TaskError
from atmanrl.tasks.generated import split_of
from atmanrl.tasks.multihop import FEWEST, LARGEST, MOST, PARTS, Chain, draw_chain, tell_people, tell_recipe

FRACTIONS = {words: divisor for divisor, words in PARTS.items()}
ORDERS = {"add": "+", "subtract": "-", "take away": "-", "multiply by": "*", "divide by": "/"}


def chain_of(question: str) -> Chain:
    """Read the chain back out of its telling, by a parser that shares no code with the teller."""
    start, *sentences, _ = re.split(r"(?<=[.?]) ", question)
    start = int(re.search(r"\d+", start)[0])
    operations = []
    for sentence in sentences:
        if found := re.fullmatch(r"(?:Then )?([A-Za-z ]+?) (\d+)\.", sentence):
            operations.append((ORDERS[found[1].lower()], int(found[2])))
        elif found := re.fullmatch(r"\w+ has (\d+) (more|fewer) \w+ than \w+\.", sentence):
            operations.append(({"more": "+", "fewer": "-"}[found[2]], int(found[1])))
        elif found := re.fullmatch(r"\w+ has (twice|\d+ times) as many \w+ as \w+\.", sentence):
            operations.append(("*", 2 if found[1] == "twice" else int(found[1].split()[0])))
        else:
            found = re.fullmatch(r"\w+ has ([a-z ]+) as many \w+ as \w+\.", sentence)
            operations.append(("/", FRACTIONS[found[1]]))
    return Chain(start, tuple(operations))


lengths = st.integers(FEWEST, MOST)
rngs = st.integers(0, 10**9).map(Random)


@given(lengths, rngs)
def test_every_number_on_the_way_is_small_and_whole(length, rng):
    chain = draw_chain(rng, length)
    value = chain.start
    assert len(chain.operations) == length
    for sign, number in chain.operations:
        exact = {"+": value + number, "-": value - number, "*": value * number, "/": value / number}[sign]
        value = int(exact)
        assert value == exact and 1 <= value <= LARGEST and number >= 2
    assert chain.values[-1] == value


@given(lengths, rngs, st.sampled_from([tell_recipe, tell_people]))
def test_a_telling_can_be_read_back(length, rng, tell):
    chain = draw_chain(rng, length)
    question, steps = tell(chain, rng)
    assert chain_of(question) == chain
    assert [step.result for step in steps] == chain.values[1:]
    assert [eval(step.expression) for step in steps] == chain.values[1:]


@given(lengths, rngs)
def test_each_person_has_a_name_of_their_own_and_the_last_is_asked_for(length, rng):
    question, _ = tell_people(draw_chain(rng, length), rng)
    names = re.findall(r"(\w+) has ", question)
    assert len(set(names)) == length + 1
    assert question.endswith(f"does {names[-1]} have?")
    assert re.findall(r"(?:than|as) ([A-Z]\w+)\.", question) == names[:-1]


@pytest.mark.parametrize("steps", [2, 20, (2, 8), (5, 5)])
def test_problems_have_the_length_that_was_asked_for_and_worked_solutions(steps):
    shortest, longest = (steps, steps) if isinstance(steps, int) else steps
    problems = MultiHop(steps, train_size=300, test_size=1).problems("train")
    found = Counter(len(chain_of(p.question).operations) for p in problems)
    assert set(found) == set(range(shortest, longest + 1))
    assert min(found.values()) > 0.5 * 300 / len(found)
    for p in problems:
        sums = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", p.solution)
        assert f"/{len(sums)}-steps/" in p.id and sums[-1][3] == p.gold
        assert all(eval(f"{a} {sign} {b}") == int(c) for a, sign, b, c in sums)
        assert [int(s[3]) for s in sums[:-1]] == [int(s[0]) for s in sums[1:]]


def test_train_and_test_share_no_chain_whatever_seed_lengths_and_wording():
    for split in ("train", "test"):
        for seed, steps in ((0, 2), (1, 2), (0, (2, 4))):
            problems = MultiHop(steps, train_size=400, test_size=400, seed=seed).problems(split)
            keys = [chain_of(p.question).key for p in problems]
            assert len(set(keys)) == 400
            assert {split_of(key) for key in keys} == {split}


def test_a_seed_decides_and_a_size_only_cuts():
    many, few = (MultiHop(train_size=n, test_size=5).problems("train") for n in (50, 20))
    assert many[:20] == few
    assert MultiHop(train_size=20, test_size=5, seed=1).problems("train") != few
    assert len({p.id for p in many}) == 50


def test_no_answer_is_worth_guessing():
    golds = Counter(p.gold for p in MultiHop((2, 20), train_size=4000, test_size=1).problems("train"))
    assert golds.most_common(1)[0][1] < 0.05 * 4000


def test_key():
    assert Chain(7, (("+", 5), ("*", 3))).key == "7/+5/*3"
    assert Chain(7, (("+", 5), ("*", 3), ("/", 9))).values == [7, 12, 36, 4]


@pytest.mark.parametrize("steps", [1, 21, (1, 3), (3, 21), (5, 4)])
def test_lengths_out_of_range(steps):
    with pytest.raises(TaskError, match="steps is .*from 2 to 20"):
        MultiHop(steps)


def test_bad_sizes_and_splits(monkeypatch):
    with pytest.raises(TaskError, match="test_size is 0"):
        MultiHop(test_size=0)
    with pytest.raises(TaskError, match="splits train and test, not 'val'"):
        MultiHop().problems("val")
    monkeypatch.setattr("atmanrl.tasks.multihop.draw_chain", lambda rng, length: Chain(2, (("+", 2),)))
    split = split_of("2/+2")
    with pytest.raises(TaskError, match=f"found only 1 different {split} problems; ask for fewer than 3"):
        MultiHop(2, train_size=3, test_size=3).problems(split)


def test_answers_are_judged_as_numbers():
    task, problem = MultiHop(), Problem("x", "?", "12")
    assert task.is_right(" 12 marbles.", problem) and not task.is_right("13", problem)
    assert task.prompt(problem).startswith("?\n\n") and MultiHop(instruction="").prompt(problem) == "?"
