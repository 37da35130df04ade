"""A generator of reasoning-gym as it runs in its process: what it draws, how it scores, and what it does not evaluate."""

import datetime

import pytest

from atmanrl.tasks.gym_worker import CHUNK, Generator, is_harmless

HARMLESS = [
    "40*(94 - 90) + 83 - 74", "x*asin(3*x) + sqrt(1 - 9*x**2)/3 + C", "-x**9 + 7*x**(1/2)", "[[1, 0], [0, 1]]", "['a', 'b']",
    "_ _ Q _\n_ _ _ _", "0 1\n1 0", "5!", "it's", "", "1 +", "\x00",
]  # fmt: skip
HARMFUL = [
    "__import__('os').system('true')", "open('x', 'w')", "exit()", "(lambda: 1)()", "[x for x in (1, 2)]", "a.b", "a[0]",
    "exec('1')", "print(1)", "sqrt(print(1))", "9**9**9", "2**1000", "[0]*10**9", "10**9*[0]", "'a'*10**9", "(1, 2)*10**9",
    "f'{print(1)}'", "1 if print(1) else 2", "open('x')!", "print(1) print(2)", "1<<10", "sin(x=1)", "(x := 1)",
]  # fmt: skip


@pytest.fixture(scope="module")
def generator():
    """Make a generator in this process."""
    pytest.importorskip("reasoning_gym", reason="pip install 'atmanrl[reasoning-gym]'")
    return lambda name, **config: Generator(name, config)


@pytest.mark.parametrize("answer", HARMLESS)
def test_a_formula_or_a_list_may_be_evaluated(answer):
    assert is_harmless(answer)


@pytest.mark.parametrize("answer", HARMFUL)
def test_what_would_do_something_else_may_not(answer):
    assert not is_harmless(answer)


def test_an_answer_is_not_run(generator, tmp_path):
    file = tmp_path / "written"
    for name in ("countdown", "simple_integration", "spiral_matrix"):
        own = generator(name)
        (entry, gold), *_ = own.draw(seed=3, first=0, count=1)
        assert own.evaluates and own.score(gold, entry) == 1
        assert own.score(f"open({str(file)!r}, 'w').write('x')", entry) == 0
        own.dataset.score_answer(f"open({str(file)!r}, 'w').write('x')", entry)
        assert file.exists(), "the scorer by itself runs it"
        file.unlink()


@pytest.mark.parametrize(
    ("name", "beginning"),
    [("spell_backward", "rettel"), ("mini_sudoku", "1 2 3 4\n"), ("jugs", '["fill')],
    ids=["words", "lines", "json"],
)  # fmt: skip
def test_gold_answers_need_not_be_numbers(generator, name, beginning):
    own = generator(name)
    (entry, gold), *_ = own.draw(seed=1, first=0, count=1)
    assert type(gold) is str and len(gold.splitlines()) == len(beginning.splitlines()) or "\n" in gold
    assert own.score(gold, entry) == 1 and own.score(gold[:-1], entry) != 1


def test_one_of_many_right_answers_is_gold_where_the_generator_names_one(generator):
    for name in ("graph_color", "propositional_logic"):
        own = generator(name)
        for entry, gold in own.draw(seed=1, first=0, count=3):
            assert entry["answer"] is None and gold and own.score(gold, entry) == 1


def test_a_generator_that_names_no_answer_has_an_empty_gold_one(generator):
    (entry, gold), *_ = generator("rush_hour").draw(seed=1, first=0, count=1)
    assert entry["answer"] is None and gold == ""


def test_a_scorer_that_takes_any_text_for_right_asks_for_the_gold_answer(generator):
    own = generator("game_of_life_halting")
    for entry, gold in own.draw(seed=1, first=0, count=4):
        assert own.dataset.score_answer("rubbish", entry) == 1
        assert [own.score(text, entry) for text in (gold, "rubbish")] == [1, 0]


def test_what_is_no_number_is_near_to_none(generator):
    own = generator("complex_arithmetic")
    (entry, gold), *_ = own.draw(seed=1, first=0, count=1)
    assert own.dataset.score_answer("nan", entry) == 1
    assert [own.score(text, entry) for text in (gold, "nan", "nan+nanj")] == [1, 0, 0]


def test_a_scorer_that_raises_cannot_read_the_answer(generator):
    own = generator("prime_factorization")
    (entry, _), *_ = own.draw(seed=1, first=0, count=1)
    with pytest.raises(ValueError, match="invalid literal"):
        own.dataset.score_answer("two times three", entry)
    assert own.score("two times three", entry) is None


def test_draws_are_by_seed_alone_and_end_with_the_chunk(generator):
    own = generator("pool_matrix")  # which draws from the global random numbers of numpy
    whole = own.draw(seed=5, first=0, count=6)
    assert own.draw(seed=6, first=0, count=6) != whole
    assert own.draw(seed=5, first=4, count=2) == whole[4:]
    assert own.draw(seed=5, first=CHUNK, count=1) == []


def test_a_draw_that_fails_is_its_message(generator):
    own = generator("gcd")
    own.draw(seed=1, first=0, count=1)

    class Fails:
        def __getitem__(self, number):
            raise RuntimeError("gave up\nat length")

    own.dataset = Fails()
    assert own.draw(seed=1, first=0, count=2) == ["RuntimeError: gave up"] * 2


@pytest.mark.parametrize(
    ("name", "config", "parts"),
    [
        ("spel_backward", {}, ["no generator 'spel_backward'; did you mean spell_backward?", "ab, acre", "zebra_puzzles"]),
        ("nothing_like_it", {}, ["no generator 'nothing_like_it'.", "ab, acre"]),
        ("composite", {}, ["MixtureTask"]),
        ("gcd", {"min_valu": 1}, ["no field 'min_valu'; did you mean min_value?", "max_value (1000)"]),
        ("gcd", {"size": 3}, ["config.size", "train_size"]),
        ("gcd", {"min_numbers": 0}, ["gcd does not take min_numbers=0", "at least 2"]),
        ("gcd", {"min_numbers": "two"}, ["gcd does not take min_numbers='two'"]),
    ],
)  # fmt: skip
def test_a_wrong_name_or_field_is_answered_by_those_there_are(generator, name, config, parts):
    fault = generator(name, **config).fault()
    assert all(part in fault for part in parts), fault


@pytest.mark.parametrize(
    ("name", "field", "value", "converted"),
    [
        ("chain_sum", "min_terms", 3, 3),
        ("countdown", "operators", ["+", "-"], ("+", "-")),
        ("word_sorting", "transformation", "lowercase", "LOWERCASE"),
        ("time_intervals", "min_date", "2020-02-03", datetime.date(2020, 2, 3)),
    ],
)  # fmt: skip
def test_fields_take_what_yaml_gives(generator, name, field, value, converted):
    own = generator(name, **{field: value})
    assert own.fault() is None
    set_value = getattr(own.dataset.config, field)
    assert getattr(set_value, "name", set_value) == converted
