"""The benchmark's generated inputs, 300 for each parser; `python -m experiments.benchmarks.fuzz` has 10,000."""

import json
from random import Random

import pytest

from atmanrl.tasks import GSM8K, MMLU
from experiments.benchmarks import fuzz
from experiments.benchmarks.fuzz import run
from experiments.benchmarks.fuzz_answers import neighbours, number
from experiments.benchmarks.fuzz_parsers import Parser, parsers

NAMES = [
    "parse_number", "same_number", "parse_letter", "split", "token_texts", "tagger", "GSM8K rows", "MMLU rows", "trace rows",
    "sweep files",
]  # fmt: skip


@pytest.fixture(scope="module")
def by_name(tmp_path_factory):
    return {parser.name: parser for parser in parsers(tmp_path_factory.mktemp("fuzz"))}


def test_every_parser_has_a_test(by_name):
    assert list(by_name) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_generated_input_raises_or_is_misread(by_name, name):
    result = run(by_name[name], 300, large=False)
    assert (result.inputs, result.exceptions, result.wrong) == (300, 0, 0), result.examples


def test_the_benchmark_counts_exceptions_wrong_results_and_refusals():
    def parse(given):
        if given == 1:
            raise KeyError("fault")
        if given == 2:
            raise ValueError("refused")
        return given

    inputs = iter([(1, None), (2, None), (2, 2), (3, 4), (5, 5)])
    parser = Parser("p", lambda rng: next(inputs), parse, large=lambda rng: ["x" * 9], allowed=(ValueError,))
    result = run(parser, 5)
    assert (result.inputs, result.exceptions, result.wrong) == (6, 1, 2)


def test_all_gold_answers_of_gsm8k_stay_right_in_any_dress_and_their_neighbours_wrong(shared_data):
    task, rng = GSM8K(str(shared_data / "gsm8k")), Random(0)
    problems = [*task.problems("train"), *task.problems("test")]
    assert len(problems) == 8792
    for problem in problems:
        text, value = number(rng, value=int(problem.gold) if problem.gold.lstrip("-").isdigit() else None)
        if str(value) == problem.gold:
            assert task.is_right(text, problem), text
            assert not task.is_right(number(rng, value=rng.choice(neighbours(value)))[0], problem)


def test_choices_of_mmlu_are_read_in_any_form_and_none_without_its_letter(shared_data):
    task = MMLU(str(shared_data / "mmlu"))
    forms = ["**{}** {}", "{}. {}", "({}) {}", "{} {}", "The answer is {}.", "The answer is {}: {}"]
    for problem in task.problems("test")[::8]:
        choices = problem.columns["choices"]
        text = choices["ABCD".index(problem.gold)]
        if not any(choice.strip("~^*' ") in {*"ABCDabcd"} for choice in choices):
            assert all(task.is_right(form.format(problem.gold, text), problem) for form in forms), text
            assert not any(task.can_read(choice, problem) for choice in choices), choices


def test_the_command_writes_its_results(tmp_path, monkeypatch, capsys):
    file = tmp_path / "fuzz.json"
    monkeypatch.setattr("sys.argv", ["fuzz", "--cases", "2", "--sizes", "small", "--json", str(file)])
    fuzz.main()
    results = json.loads(file.read_text())["parsers"]
    assert list(results) == NAMES and all(result["inputs"] == 2 for result in results.values())
    assert all(name in capsys.readouterr().out for name in NAMES[:1])
