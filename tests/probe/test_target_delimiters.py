"""What is probed where something else than `#####` marks the answer: its tokens, then the gold answer alone."""

import pytest
from test_target import Pieces, text_parts
from transformers import AutoTokenizer

from atmanrl.models.tokenizing import text_ids
from atmanrl.probe.target import target
from atmanrl.rollouts import BoxedSplitter, Completion, DelimiterSplitter, Rollout
from atmanrl.rollouts.split import splitter_of
from atmanrl.tasks import Problem

WORDS, SPACED = (
    "a b . } 3 7 { is answer box ed The".split(),
    (" ", " 3", " 7", " The", ". The", " answer", " is", " is 3"),
)
PIECES = Pieces(*WORDS, *SPACED, "\\", "\\boxed", "{3", "}.", ".\\", "</think>", "\n")
SAMPLED = {
    "words": ("The answer is", ["a", " The", " answer", " is", " 3", "."], ["a"], [" The", " answer", " is"], [" 7"]),
    "words_that_straddle": ("The answer is", ["a", ". The", " answer", " is", " 3"], ["a"], [". The", " answer", " is"],
                            [" 7"]),
    "words_that_hold_the_answer": ("answer is", ["a", "b", "answer", " is 3"], ["a", "b"], ["answer", " is"], [" 7"]),
    "think": ("</think>", ["a", "b", "</think>", "3", "."], ["a", "b"], ["</think>"], [" 7"]),
    "box": (BoxedSplitter(), ["a", "b", "\\boxed", "{", "3", "}", "."], ["a", "b"], ["\\boxed", "{"], ["7"]),
    "box_in_parts": (BoxedSplitter(), ["a", "\\", "box", "ed", "{", "3", "}"], ["a"], ["\\", "box", "ed", "{"], ["7"]),
    "box_that_holds_the_answer": (BoxedSplitter(), ["a", "\\boxed", "{3", "}."], ["a"], ["\\boxed", "{"], ["7"]),
    "box_that_straddles": (BoxedSplitter(), ["a", ".\\", "box", "ed", "{", "3", "}"], ["a"], [".\\", "box", "ed", "{"],
                           ["7"]),
    "last_box": (BoxedSplitter(), ["\\boxed", "{", "7", "}", "a", "\\boxed", "{", "3", "}"],
                 ["\\boxed", "{", "7", "}", "a"], ["\\boxed", "{"], ["7"]),
}  # fmt: skip


def rollout(tokenizer, ids: list[int], splitter, gold: str = "7") -> Rollout:
    parts = splitter_of(splitter).split(tokenizer, ids)
    return Rollout(Problem("p/0", "?", gold), 0, 0, "?", [5, 6], Completion(ids, [], True), parts)


@pytest.mark.parametrize("case", SAMPLED)
def test_what_marks_the_answer_stands_as_sampled_where_it_can(case):
    splitter, sampled, cot, opening, answer = SAMPLED[case]
    found = target(rollout(PIECES, PIECES.of(*sampled), splitter), PIECES)
    assert text_parts(PIECES, found) == ("".join(cot), "".join(opening), "".join(answer))
    assert found.tail == tuple(PIECES.of(*cot, *opening, *answer))
    assert (found.cot_ids, found.answer_ids) == tuple(tuple(PIECES.of(*part)) for part in (cot, answer))


def test_a_box_is_closed_before_the_sequence_ends_and_not_otherwise():
    made = rollout(PIECES, PIECES.of("a", "\\boxed", "{", "3", "}"), BoxedSplitter())
    assert target(made, PIECES).tail == tuple(PIECES.of("a", "\\boxed", "{", "7"))
    ends = target(made, PIECES, eos_id=0)
    assert ends.tail == (*PIECES.of("a", "\\boxed", "{", "7", "}"), 0) and len(ends.answer_ids) == 3


def test_a_special_token_stays_one_token(tiny_folder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    think = tokenizer.convert_tokens_to_ids("</think>")
    cot, answer = text_ids(tokenizer, "3 + 4 is 7"), text_ids(tokenizer, "12")
    splitter = DelimiterSplitter("</think>")
    for before in (cot, [*cot, *text_ids(tokenizer, ".")]):
        found = target(rollout(tokenizer, [*before, think, *answer], splitter), tokenizer)
        assert found.cot_ids == tuple(before) and found.delimiter_ids[0] == think
        assert tokenizer.decode(found.answer_ids).strip() == "7"
        assert think not in found.delimiter_ids[1:] + found.answer_ids
