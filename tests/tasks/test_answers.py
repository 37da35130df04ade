import ast
import string
import time
import unicodedata
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.tasks import GSM8K, MMLU, MultiHop, Problem, WordProblems, answers
from atmanrl.tasks.answers import MAX_CHARACTERS, parse_number, same_number

# The module's docstring promises these; each line is a Python string and what is read in it.
DOCUMENTED = [
    (ast.literal_eval(text), value)
    for text, value in (
        line.rsplit(maxsplit=1) for line in answers.__doc__.splitlines() if line.startswith(("    '", '    "'))
    )
]
# Characters that mean something to the parser, so that hypothesis reaches its corners.
nasty = st.text("0123456789.,-+/eE$ \n\\{}frac\u2212\u202f\u00bd\uff17#%*")


def is_minus(character):
    name = unicodedata.name(character, "")
    if any(
        word in name for word in ("BULLET", "HYPHENATION", "SUPER", "SUBSCRIPT", "COMBINING", "SOFT", "WITH", "PLUS")
    ):
        return False
    return name.endswith(("MINUS SIGN", "HYPHEN", "HYPHEN-MINUS", "EN DASH", "FIGURE DASH")) and "DOUBLE" not in name


numbers = st.one_of(st.integers(-(10**30), 10**30), st.decimals(-(10**9), 10**9, places=3))


def test_the_documented_table_was_found():
    assert len(DOCUMENTED) > 45


@pytest.mark.parametrize(("text", "value"), DOCUMENTED, ids=[ascii(text) for text, _ in DOCUMENTED])
def test_documented_case(text, value):
    assert parse_number(text) == (None if value == "None" else Fraction(value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-0", 0),
        ("0.50", Fraction(1, 2)),
        ("1,000.", 1000),
        ("72...", 72),
        ("72,", 72),
        ("(72)", 72),
        ("\\(72\\)", 72),
        ("<b>72</b>", 72),
        ("x = -3", -3),
        ("x = - 3", -3),
        ("- $ 3", -3),
        ("profit -3", -3),
        ("pre-7", 7),
        ("--3", 3),
        ("\u20147", 7),  # an em dash is punctuation
        ("\uff0d\uff11\uff0c\uff10\uff10\uff10", -1000),
        ("$1,00", None),
        ("1,0000", None),
        ("1,,000", None),
        ("1.000,50", None),
        ("2.5e-1", Fraction(1, 4)),
        ("7 eggs", 7),
        ("7e", 7),
        ("1e1000", None),
        ("-1 1/2", Fraction(-3, 2)),
        ("1\\frac{1}{2}", Fraction(3, 2)),
        ("\\dfrac{10}{4}", Fraction(5, 2)),
        ("\\frac{}{}", None),
        ("0.5/2", Fraction(1, 4)),
        ("0/0", None),
        ("1/2,3", None),
        ("\u00b2", None),
        ("seventy 2", 2),
        ("#####72", 72),
        ("\\frac{3}{-4}", Fraction(-3, 4)),
        ("-\\frac{-3}{4}", Fraction(3, 4)),
        ("\\frac 1 2", Fraction(1, 2)),
        ("\\frac1{2}", Fraction(1, 2)),
        ("\\frac123", Fraction(1, 2)),
        ("\\dfrac{\\text{3}}{\\mathbf{4}}", Fraction(3, 4)),
        ("$\\frac{1{,}000}{3}$", Fraction(1000, 3)),
        ("$1\\,\\frac12$", Fraction(3, 2)),
        ("1,000 1/2", Fraction(2001, 2)),
        ("3 * \\frac{1}{2}", 3),
        ("(-3)/4", Fraction(-3, 4)),
        ("$3$/$4$", Fraction(3, 4)),
        ("\u00b3\u2044\u2084", Fraction(3, 4)),
        ("The answer is -\u00bd", Fraction(-1, 2)),
        ("5 \u00d7 10\u00b3", 5000),
        ("5 * 10^3", 5000),
        ("10^{-2}", Fraction(1, 100)),
        ("1e3 \u00d7 10^3", 10**6),
        ("1 \u00d7 10^9999", None),
        ("2\u00b3", None),
        ("-$**3**$", -3),
        ('-"3"', -3),
        ("-`3`", -3),
        ("-<b>3</b>", -3),
        ("-\\left(3\\right)", -3),
        ("\\-3", -3),
        ("is **- 3**", -3),
        ("- -3", -3),
        ("-US$3", -3),
        ("-USD 3", -3),
        ("Negative **3**", -3),
        ("1\u202f00", 1),
        ("1'0000", None),
        ("5'10", 5),
        ("\U0001d7d5\U0001d7d0", 72),
        ("7\ufe0f\u20e3", 7),
        ("7\u200b2", 72),
        ("&frac12;", Fraction(1, 2)),
        ("&#" + "9" * 5000 + ";", None),
        ("inf", None),
    ],
)
def test_parse_number(text, value):
    assert parse_number(text) == value


def test_a_number_is_exact_and_a_fraction_a_fraction():
    long = "-0.1234567890123456789012345678901234567890"  # more digits than decimal's default precision
    assert parse_number(long) == Fraction(long)
    assert isinstance(parse_number("7.5"), Decimal)
    assert isinstance(parse_number("15/2"), Fraction)


def test_absurdly_long_numbers_are_no_answers():
    assert parse_number("9" * MAX_CHARACTERS) == 10**MAX_CHARACTERS - 1
    assert parse_number("9" * (MAX_CHARACTERS + 1)) is None
    assert not same_number("9" * 5000, "9" * 5000)


@pytest.mark.parametrize(
    "text",
    [
        "1" * 300_000,
        "1," * 150_000,
        "1." * 150_000,
        "1 " * 150_000,
        "1/" * 150_000,
        "1" + " " * 300_000 + "1",
        "1 " + "2" * 300_000 + "x",
        "1e" + "9" * 300_000,
        "1e9999999",
        "1/1e999",
        "." * 300_000,
        "-" * 300_000 + "1",
        "- " * 150_000 + "1",
        " " * 300_000 + "1",
        "$" * 300_000 + "1",
        "\\frac{1" * 40_000,
        "\\frac{1}{" * 40_000,
        "\\frac{" + "1" * 300_000,
    ],
    ids=lambda text: f"{text[:10]!a}*{len(text)}",
)
def test_no_text_takes_long(text):
    start = time.process_time()
    parse_number(text)
    assert time.process_time() - start < 1  # a few milliseconds; quadratic time would be minutes


@given(st.one_of(st.text(), nasty))
def test_no_text_raises(text):
    number = parse_number(text)
    assert number is None or number == number
    assert same_number(text, text) == (number is not None)


@given(nasty, nasty)
def test_same_number_is_symmetric(one, other):
    assert same_number(one, other) == same_number(other, one)


@given(
    numbers,
    st.sampled_from(["{}", "{} apples", "{}%", "{}.", "**{}**", "\\boxed{{{}}}", "The answer is {}.", "\n{}\n#####"]),
    st.sampled_from(["", "$", "\\$", "€", "$ "]),
    st.sampled_from(["-", "\u2212", "\u2013", "- "]),
    st.sampled_from([",", "", "{,}", "\u202f"]),
    st.booleans(),
)
def test_a_formatted_number_is_read_back(number, frame, currency, minus, comma, currency_first):
    if minus == "- " and frame.startswith("The"):
        minus = "-"  # a spaced dash behind a word is punctuation
    sign = minus if number < 0 else ""
    digits = f"{abs(number):,}".replace(",", comma)
    text = frame.format(currency + sign + digits if currency_first else sign + currency + digits)
    assert parse_number(text) == number
    assert same_number(text, str(number))


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_read_back(fraction):
    sign, size = "-" if fraction < 0 else "", abs(fraction)
    whole, rest = divmod(size, 1)
    assert parse_number(f"{sign}{size.numerator}/{size.denominator}") == fraction
    assert parse_number(f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}") == fraction
    assert parse_number(f"{sign}{whole} {rest.numerator}/{rest.denominator}") == fraction


@given(numbers, numbers)
def test_same_number_compares_values(one, other):
    assert same_number(str(one), str(other)) == (one == other)


@given(st.integers(-(10**6), 10**6), st.text(string.ascii_letters + string.punctuation + " \n", max_size=20))
def test_what_follows_a_number_and_a_space_does_not_matter(number, rest):
    assert parse_number(f"{number} : {rest}") == number


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("72", "72", True),
        ("$72.00", "72", True),
        ("0.75", "3/4", True),
        ("3/4", "0.75", True),
        ("0.33", "1/3", False),
        ("72", "-72", False),
        ("1000", "1,000", True),
        ("", "72", False),
        ("72", "", False),
        ("", "", False),
    ],
)
def test_same_number(answer, gold, expected):
    assert same_number(answer, gold) is expected


JUDGES = [GSM8K(), WordProblems(), MultiHop(), MMLU()]  # none of them reads its data before `problems`
FRAMES = ["{}", " {}\n", "{}.", "**{}**", "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "({})", "The answer is {}."]


@given(st.sampled_from(JUDGES), st.sampled_from(FRAMES), st.data())
def test_every_task_takes_its_gold_answer_in_every_frame_and_no_other(task, frame, data):
    kind = st.sampled_from("ABCD") if isinstance(task, MMLU) else st.integers(-9999, 9999).map(str)
    gold, other = data.draw(kind), data.draw(kind)
    assert task.is_right(frame.format(gold), Problem("x", "?", gold))
    assert task.is_right(frame.format(other), Problem("x", "?", gold)) == (gold == other)


@given(st.sampled_from(JUDGES), st.text(), st.sampled_from(["7", "B"]))
def test_no_task_fails_on_any_answer(task, answer, gold):
    assert task.is_right(answer, Problem("x", "?", gold)) in (True, False)


@pytest.mark.parametrize("dash", sorted({c for c in map(chr, range(0x2E80)) if is_minus(c)}), ids=ascii)
def test_every_minus_sign_and_hyphen_of_unicode_is_a_sign(dash):
    assert parse_number(f"{dash}3") == -3
    assert parse_number(f"x = {dash}\\frac34") == Fraction(-3, 4)


@pytest.mark.parametrize("character", [c for c in map(chr, range(0x110000)) if c.isdecimal()][::10])
def test_the_digits_of_every_script_are_read(character):
    digits = "".join(chr(ord(character) + i) for i in (7, 2))
    assert parse_number(digits) == 72


@pytest.mark.parametrize(
    "character", [c for c in map(chr, range(0x3000)) if "VULGAR FRACTION" in unicodedata.name(c, "")]
)
def test_every_fraction_that_is_one_character_is_read(character):
    value = Fraction(unicodedata.numeric(character)).limit_denominator(10)
    assert parse_number(character) == value
    assert parse_number(f"-2{character}") == -(2 + value)
