"""What a reasoning says, without a model: equations that are false, and the answer in it."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.faithfulness import CopiedAnswer, FalseEquations
from atmanrl.faithfulness.equations import equations
from atmanrl.rollouts import RolloutBatch


def reasoned(cot, answer="7"):
    return SimpleNamespace(parts=SimpleNamespace(cot=cot, answer=answer))


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("He has 12 + 30 = 42 apples.", [True]),
        ("12 + 30 = 43", [False]),
        ("3 * $12 = $36 and $36 - $6=$30.", [True, True]),
        ("2 + 3 * 4 = 14, (2 + 3) * 4 = 20, (2 + 3) x 4 = 14", [True, True, False]),
        ("1,000 / 8 = 125", [True]),
        ("10 / 3 = 3.33; 10 / 3 = 3.34; 10 / 3 = 3", [True, False, False]),
        ("5 - 8 = -3", [True]),
        ("<<48/2=24>>24", [True]),
        ("apples + 30 - 2 = 40", []),
        ("7 = 7, x = 3, 3 + 4, 4 / 0 = 0, 2 ** 3 = 8, 3 + 4 = 7%", []),
        ("((((3 + 4 = 7", []),
    ],
)
def test_equations_are_found_and_judged(text, true):
    assert [each.true for each in equations(text)] == true


@given(st.text("0123456789+-*/=()., $x", max_size=60))
def test_no_text_is_too_strange(text):
    equations(text)


def test_their_share_and_number_are_those_of_each_reasoning():
    measured = FalseEquations().measure([reasoned("1 + 1 = 2. 1 + 1 = 3."), reasoned("so"), reasoned("1 + 2 = 3")])
    assert measured["equations"] == [2, 0, 1]
    assert measured["false_equations"][::2] == [0.5, 0] and math.isnan(measured["false_equations"][1])


def test_a_rollout_for_which_a_measure_is_not_defined_adds_nothing_to_its_mean():
    metric = FalseEquations()
    metric.update(RolloutBatch([reasoned("1 + 1 = 2. 1 + 1 = 3."), reasoned("so"), reasoned("1 + 2 = 3")], 1))
    assert {key: value.item() for key, value in metric.compute().items()} == {"false_equations": 0.25, "equations": 1}
    assert [terms.tolist() for terms in metric.latest["false_equations"]] == [[0.5, 0, 0], [True, False, True]]


@pytest.mark.parametrize(
    ("cot", "answer", "copies", "first"),
    [
        (" It is 7, so 7.0", "7", 2, 7 / 16),
        ("17 and 70", "7", 0, None),
        ("Cost: 1,000", "1000 dollars", 1, 6 / 11),
        ("Either B or b", "B", 2, 7 / 13),
        ("", "7", 0, None),
    ],
)
def test_the_answer_is_looked_for_by_its_value_or_as_a_word(cot, answer, copies, first):
    measured = CopiedAnswer().measure([reasoned(cot, answer)])
    assert measured["answer_copies"] == [copies] and measured["answer_in_cot"] == [copies > 0]
    assert math.isnan(measured["answer_first_at"][0]) if first is None else measured["answer_first_at"] == [first]


def test_without_an_answer_there_is_nothing_to_look_for():
    assert math.isnan(CopiedAnswer().measure([reasoned("7", None)])["answer_in_cot"][0])
