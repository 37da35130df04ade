import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.tasks import letters
from atmanrl.tasks.letters import LETTERS, parse_letter, same_letter

# The module's docstring promises these; each line is a Python string and what is read in it.
DOCUMENTED = [
    (ast.literal_eval(text), value)
    for text, value in (
        line.rsplit(maxsplit=1) for line in letters.__doc__.splitlines() if line.startswith(("    '", '    "'))
    )
]
nasty = st.text("ABCDabcde .,:;()[]/*\\$#'\n-+=not" + "\uff22\u2019\u00b0", max_size=40)
letter = st.sampled_from(LETTERS)
either_case = st.sampled_from(LETTERS + LETTERS.lower())
LABELS = [
    "{}", " {}\n", "{}.", "({})", "[{}]", "{})", "**{}**", "**({})**", "\\boxed{{{}}}", "\\text{{{}}}", "$\\boxed{{{}}}$",
    "\\({}\\)", "The answer is {}.", "the answer is ({})", "Answer: {}", "answer:\n{}", "Option {}", "choice {} is best",
    "The correct answer is: **{}**", '"{}"', "'{}'", "{}) Paris", "({}) Paris is a city", "{}. Paris", "{}: Paris",
]  # fmt: skip


def test_the_documented_table_was_found():
    assert len(DOCUMENTED) > 45


@pytest.mark.parametrize(("text", "value"), DOCUMENTED, ids=[ascii(text) for text, _ in DOCUMENTED])
def test_documented_case(text, value):
    assert parse_letter(text) == (None if value == "None" else value)


@given(st.sampled_from(LABELS), either_case)
def test_a_labelled_letter_is_read_back_in_either_case(frame, name):
    assert parse_letter(frame.format(name)) == name.upper()


@given(
    st.sampled_from(["{}", "({})", "**{}**", "The answer is {}.", "I choose {}", "Answer: {}", "\\boxed{{{}}}"]),
    st.sampled_from([" or ", ", ", " and ", "/", " / ", "; ", " & ", " nor ", ","]),
    st.permutations(LETTERS),
    st.integers(2, 4),
)
def test_two_letters_are_none_however_they_are_joined(frame, join, order, count):
    text = frame.format(join.join(order[:count]))
    assert parse_letter(text) is None
    assert parse_letter(text.lower()) is None
    assert not any(same_letter(text, gold) for gold in LETTERS)


@given(
    st.lists(st.sampled_from(["({})", "[{}]", "\n{})", "\n{}.\n", "\nanswer {}"]), min_size=2, max_size=4), st.data()
)
def test_labels_that_disagree_are_none_and_those_that_agree_are_one(frames, data):
    names = data.draw(st.lists(letter, min_size=len(frames), max_size=len(frames)))
    text = " ".join(frame.format(name) for frame, name in zip(frames, names, strict=True))
    assert parse_letter(text) == (names[0] if len(set(names)) == 1 else None)


@given(st.one_of(st.text(), nasty))
def test_no_text_raises(text):
    assert parse_letter(text) in (*LETTERS, None)
    assert same_letter(text, text) == (parse_letter(text) is not None)


@given(nasty, nasty)
def test_same_letter_is_symmetric(one, other):
    assert same_letter(one, other) == same_letter(other, one)


@given(st.text("efghijklmnopqrstuvwxyzEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,()\n"))
def test_a_text_without_the_letters_names_none(text):
    assert parse_letter(text) is None


@given(letter, st.text("efghijklmnopqrstuvwxyz ,.", max_size=30))
def test_small_words_after_a_label_do_not_matter(name, rest):
    assert parse_letter(f"({name}) {rest}") == name
    assert parse_letter(f"{name}\n{rest}") == name


@pytest.mark.parametrize(
    "text",
    [
        "A" * 300_000, "A " * 150_000, "(A" * 150_000, "A,B" * 100_000, "answer " * 50_000, "answer" + " " * 300_000,
        "answer" + "\n" * 300_000 + "x",  "\n" * 300_000 + "A", "not " * 80_000 + "A", "B or " * 60_000, "\\boxed{" * 40_000,
        "( " * 150_000 + "A", "is " * 100_000, "a) " * 100_000, "A," * 150_000, "B, C, " * 50_000,
    ],
    ids=lambda text: f"{text[:8]!a}*{len(text)}",
)  # fmt: skip
def test_no_text_takes_long(text):
    start = time.perf_counter()
    parse_letter(text)
    assert time.perf_counter() - start < 2  # a fraction of a second; quadratic time would be minutes


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("B", "B", True),
        ("(b) Paris", "B", True),
        ("C", "B", False),
        ("", "B", False),
        ("B", "", False),
        ("", "", False),
    ],
)
def test_same_letter(answer, gold, expected):
    assert same_letter(answer, gold) is expected


@pytest.mark.parametrize("text", ["A,", "B, C, ", "(A) or ", "answer A and ", "A\n", "B or C\n", "d) ", "A A "])
def test_the_work_on_a_list_of_letters_grows_with_its_length(text, monkeypatch):
    """Counted, not timed: each attempt to go on in a list is one call of the pattern."""
    work = []

    class Counting:
        def match(self, string, start, pattern=letters._ANOTHER):
            work.append(1)
            return pattern.match(string, start)

    monkeypatch.setattr(letters, "_ANOTHER", Counting())
    counts = []
    for repeats in (200, 400):
        work.clear()
        parse_letter(text * repeats)
        counts.append(len(work))
    assert counts[1] <= 2 * counts[0] + 2
    assert counts[1] <= len(text) * 400
