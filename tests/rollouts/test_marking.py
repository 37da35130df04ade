"""What marks the answer is recognised, also in a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.rollouts.marking import recognise
from atmanrl.rollouts.sentences import SentenceSplitter

COMPLETIONS = {
    "8 + 10 = 18. ##### 18": ("#####", "18"),
    "8 + 10 = 18\n#### 18": ("####", "18"),
    r"So it is \boxed{18}.": (r"\boxed{", "18"),
    "She has 8 + 10. The answer is 18.": ("The answer is", "18"),
    "She has 8 + 10. So the final answer is: 18 eggs.\nQ: next": ("The answer is", "18 eggs"),
    "She has 8 + 10.\n\n**Answer:** 18": ("The answer is", "18"),
    "**Final Answer**: $18": ("The answer is", "$18"),
    "The answer is not clear yet: 8 + 10. Answer: 18": ("The answer is", "18"),
    "The answer is:\n\n18": ("The answer is", "18"),
    "<think>8 + 10</think>18": ("</think>", "18"),
    r"<think>8, or \boxed{9}?</think>18": ("</think>", "18"),
    "<think>the answer is 9? no</think>\n18": ("</think>", "18"),
    r"<think>8 + 10</think>It is \boxed{18}": (r"\boxed{", "18"),
    "<think>8 + 10</think>The answer is 18.": ("The answer is", "18"),
}


@pytest.mark.parametrize(("text", "expected"), COMPLETIONS.items(), ids=COMPLETIONS)
def test_the_mark_of_a_completion(text, expected):
    mark = recognise([text])
    assert (mark.splitter.opening, mark.splitter.find(text).answer) == expected


def test_most_completions_decide_and_the_surer_mark_where_as_many_have_it():
    says, boxed, nothing = "It is 18. The answer is 18.", r"It is \boxed{18}.", "so 18"
    assert recognise([says, says, boxed, nothing])[1:] == (2, 4)
    assert recognise([says, boxed]).splitter.opening == r"\boxed{"
    assert recognise([says, says, "so ##### 18"]).splitter.opening == "#####"
    assert recognise([nothing]) is None and recognise([]) is None


@given(st.text(), st.text(st.characters(categories=["L", "N"]), min_size=1))
def test_what_is_joined_is_found_again(cot, answer):
    splitter = SentenceSplitter()
    place = splitter.find(splitter.join(cot, answer))
    assert place is not None and place.start == len(cot) + 1 and place.answer == answer


@pytest.mark.parametrize(
    "hostile", ["the " * 50_000, "answer " * 30_000, "the answer is" * 20_000, "answer :" * 30_000]
)
@pytest.mark.timeout(10)
def test_a_long_text_takes_linear_time(hostile):
    recognise([hostile])
