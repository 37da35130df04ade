"""Mistakes, fillers and swapped operators: what they do to a reasoning, and to answers of policies that are known."""

import math
from random import Random

import pytest
from hand_built import rollout

from atmanrl.faithfulness import Filler, Mistakes, OperatorSwap
from atmanrl.faithfulness.answers import question
from atmanrl.faithfulness.numbers import numbers, other_number, swap_operators

MEASURES = [Mistakes(), Filler(), OperatorSwap()]


def test_numbers_are_read_as_they_are_written():
    text = "He pays $1,250.50, then 3 + 4=7. B2 has 1.2.3 and 12."
    assert [(n.text, float(n.value)) for n in numbers(text)] == [
        ("1,250.50", 1250.5), ("3", 3), ("4", 4), ("7", 7), ("12", 12),
    ]  # fmt: skip
    assert all(text[n.start : n.end] == n.text for n in numbers(text))


@pytest.mark.parametrize("number", ["7", "10", "1,250.50", "0"])
def test_another_number_has_the_same_form_and_another_value(number):
    others = {other_number(number, Random(seed)) for seed in range(200)}
    assert number not in others and len(others) >= 9
    for other in others:
        assert len(other) == len(number) and sum(a != b for a, b in zip(number, other, strict=True)) == 1
        assert len(number) == 1 or other[0] != "0"


def test_operators_are_swapped_between_numbers_alone():
    assert swap_operators("So 3 + 4 * 2 = 11, $5-$2=3, 8 × (1 ÷ 2)") == "So 3 - 4 / 2 = 11, $5+$2=3, 8 ÷ (1 × 2)"
    assert swap_operators("a well-known 3 - and -4") == "a well-known 3 - and -4"


def test_a_policy_that_copies_from_its_reasoning_follows_a_mistake_and_misses_it(reader_of_reasoning):
    one = rollout(reader_of_reasoning, "Count a7", " it is 3\n##### 3", "3")
    assert Mistakes().measure([one], reader_of_reasoning) == {"mistake_changed": [1], "mistake_followed": [1]}
    assert Filler().measure([one], reader_of_reasoning) == {"filler_changed": [1]}


def test_a_policy_that_ignores_its_reasoning_does_not_care(reader_of_prompt):
    one = rollout(reader_of_prompt, "Count a7", " 4 + 3 = 7\n##### 7", "7")
    assert Mistakes().measure([one], reader_of_prompt) == {"mistake_changed": [0], "mistake_followed": [0]}
    assert Filler().measure([one], reader_of_prompt) == {"filler_changed": [0]}
    assert OperatorSwap().measure([one], reader_of_prompt) == {"operator_changed": [0]}


def test_nothing_is_said_of_an_answer_that_is_not_the_greedy_one(reader_of_reasoning):
    one = rollout(reader_of_reasoning, "Count a7", " 3 + 3\n##### 4", "3")
    for measure in MEASURES:
        assert all(
            math.isnan(value) for values in measure.measure([one], reader_of_reasoning).values() for value in values
        )


def test_nothing_is_said_where_there_is_nothing_to_alter(reader_of_prompt):
    bare, wordless = (rollout(reader_of_prompt, "a7", text, "7") for text in ("##### 7", " it is so\n##### 7"))
    assert math.isnan(Filler().measure([bare], reader_of_prompt)["filler_changed"][0])
    for measure in (Mistakes(), OperatorSwap()):
        values = measure.measure([wordless, bare], reader_of_prompt).values()
        assert all(math.isnan(value) for each in values for value in each)


def test_a_mistake_is_one_digit_and_the_answer_asked_for_is_the_mistaken_number(tiny_policy):
    one = rollout(tiny_policy, "How many?", " He has 3 + 4 = 17 apples.\n##### 17 apples", "7")
    first, second = Mistakes(seed=1).questions(one, tiny_policy)
    assert [*Mistakes(seed=1).questions(one, tiny_policy)] == [first, second]
    own, decode = question(one, tiny_policy, "own"), tiny_policy.tokenizer.decode
    assert first.answer_ids == own.answer_ids and first.cot_ids != own.cot_ids
    result = decode(second.cot_ids).strip().removeprefix("He has 3 + 4 = ").removesuffix(" apples.")
    assert result != "17" and len(result) == 2
    assert decode(second.answer_ids[:-1]).strip() == f"{result} apples"


def test_a_filler_is_as_long_as_the_reasoning_and_keeps_its_line_feed(tiny_policy):
    one = rollout(tiny_policy, "How many?", " He has 3 + 4 = 17 apples.\n##### 17", "7")
    (filled,) = Filler().questions(one, tiny_policy)
    assert len(filled.cot_ids) == len(one.cot_ids) and set(tiny_policy.tokenizer.decode(filled.cot_ids)) == set(" .\n")
    assert filled.cot_ids[-1] == one.cot_ids[-1]
