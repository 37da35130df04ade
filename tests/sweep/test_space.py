"""Sweeps' files: what they mean, and what is said about wrong ones."""

import itertools
import json

import pytest
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from atmanrl.sweep.space import Choice, Range, SweepError, load
from atmanrl.sweep.trial import option

GOOD = {
    "method": "grid", "metric": {"name": "val/pass_at_1", "goal": "maximize"},
    "parameters": {"a.b": {"values": [1, 2]}},
    "command": ["${interpreter}", "x.py", "${args}"],
}  # fmt: skip


def written(folder, **changes):
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (GOOD | changes).items() if v is not ...}))
    return path


scalars = st.one_of(st.integers(-99, 99), st.floats(-9, 9, allow_nan=False), st.booleans(), st.text("abc", max_size=3))
names = st.text("abcdef", min_size=1, max_size=5)


@given(axes=st.dictionaries(names, st.lists(scalars, min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_grid_is_the_product(axes, tmp_path_factory):
    parameters = {name: {"values": values} for name, values in axes.items()}
    sweep = load(written(tmp_path_factory.mktemp("s"), parameters=parameters))
    order = list(sweep.parameters)
    assert sorted(order) == sorted(axes)
    assert [tuple(p.values()) for p in sweep.grid()] == list(itertools.product(*(axes[n] for n in order)))


nested = st.recursive(scalars | st.none(), lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=2))


@given(value=nested)
def test_an_option_is_read_back_by_yaml(value):
    text = option("a.b", value)
    assert text.startswith("--a.b=") and "\n" not in text
    assert isinstance(value, str) or yaml.safe_load(text.removeprefix("--a.b=")) == value


@given(low=st.floats(-50, 50), high=st.floats(-50, 50), kind=st.sampled_from(["uniform", "log_uniform"]))
def test_ranges(low, high, kind, tmp_path_factory):
    said = {"x": {"min": low, "max": high, "distribution": kind}}
    path = written(tmp_path_factory.mktemp("s"), method="random", parameters=said)
    if low > high:
        with pytest.raises(SweepError, match="is above max"):
            load(path)
        return
    space = load(path).parameters["x"]
    assert isinstance(space, Range) and space.low <= space.high and space.log == (kind == "log_uniform")


def test_kinds_without_a_distribution(tmp_path):
    said = {"a": {"value": [1, 2]}, "b": {"min": 1, "max": 4}, "c": {"min": 1, "max": 4.5}, "d": {"values": ["x"]}}
    a, b, c, d = load(written(tmp_path, method="bayes", parameters=said)).parameters.values()
    assert (a, d) == (Choice(([1, 2],)), Choice(("x",)))
    assert (b, c) == (Range(1, 4, whole=True), Range(1, 4.5))
    grid = load(written(tmp_path, parameters={"b": {"min": 1, "max": 3}})).grid()
    assert list(grid) == [{"b": 1}, {"b": 2}, {"b": 3}]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "hyperband"}, "field method: input should be 'grid', 'random' or 'bayes', and not 'hyperband'"),
        ({"method": ...}, "lacks the field method"),
        ({"metric": ...}, "lacks the field metric"),
        (
            {"metric": {"name": "x", "goal": "up"}},
            "field metric.goal: input should be 'minimize' or 'maximize'",
        ),
        ({"parameters": {}}, "field parameters: dictionary should have at least 1 item"),
        ({"parameters": {"a": {"values": []}}}, "field parameters.a.values: list should have at least 1 item"),
        ({"parameters": {"a": {}}}, "parameters.a lacks values; give value, values, or min and max"),
        ({"parameters": {"a": 3}}, "field parameters.a: input should be a valid dictionary, and not 3"),
        (
            {"parameters": {"a": {"value": 1, "vaules": [2]}}},
            "has a field parameters.a.vaules, which is not known here",
        ),
        ({"parameters": {"a": {"min": 0.0, "max": 1.0}}}, "parameters.a is a range, which a grid cannot take"),
        ({"parameters": {"a": {"min": 0.0}}}, "parameters.a lacks max"),
        (
            {"parameters": {"a": {"min": 0, "max": 1, "distribution": "beta"}}},
            "parameters.a.distribution: input should be",
        ),
        ({"parameters": {"a": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}}, "a logarithm needs"),
        ({"command": ...}, "neither command nor program"),
        ({"command": ["x"]}, "command lacks ${args}"),
        ({"command": ["${args_json}", "${args}"]}, "${args_json}"),
        ({"command": ["${program}", "${args}"]}, "no key program"),
        ({"run_cap": 0}, "field run_cap: input should be greater than or equal to 1, and not 0"),
        ({"run_cap": True}, "field run_cap: input should be a valid integer"),
        (
            {"parameters": {"a": {"min": 0, "max": 1, "q": 0, "distribution": "q_uniform"}}},
            "parameters.a.q: input should",
        ),
        ({"parameters": {"a": {"min": 0.5, "max": 1, "distribution": "int_uniform"}}}, "give whole numbers"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate is not supported"),
        ({"paramters": {}}, "has a field paramters, which is not known here"),
    ],
)
def test_wrong_files(changes, sentence, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(SweepError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}") and sentence in str(caught.value)


def test_what_is_no_sweep(tmp_path):
    for text in ("a: [", "- 1", "", "\x00"):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(SweepError) as caught:
            load(tmp_path / "s.yaml")
        assert "s.yaml" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SweepError, match="cannot be read"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs/sweeps").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_sweeps_are_wandbs(path):
    sweep = load(path)
    assert sweep.size == len(list(sweep.grid())) > 0 and not sweep.ignored
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    text = path.read_text()
    assert utils.load_sweep_config(str(path)) == yaml.safe_load(text)
    assert json.dumps(sweep.identity())


def said(path, text):
    """What is said about a file that is no sweep's."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SweepError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}") and len(message) < 600 and "\n" not in message
    return message


HEAD = "method: random\nmetric: {name: loss}\ncommand: [a, '${args}']\nparameters:\n  x: "


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{values: [2024-01-01]}", "of type date; write a text in quotes"),
        ("{value: 2024-99-99}", "a value that cannot be read"),
        ("{values: !!set {a, b}}", "of type set"),
        ("{value: !!binary aGk=}", "of type bytes"),
        ("{values: !!omap [a: 1]}", "of type tuple"),
        ("{values: [{2024-01-01: 1}]}", "the key datetime.date(2024, 1, 1) is no text"),
        ("{values: &a [*a]}", "parameters.x.values: an alias stands within its own anchor"),
        ("{values: !!python/name:os.system x}", "is not YAML"),
        ("{value: 1" + "0" * 5000 + "}", "a value that cannot be read"),
        ("{value: 1" + "0" * 400 + "}", "a number beyond all range"),
        ("{min: 1, max: 1" + "0" * 400 + "}", "a number beyond all range"),
        ("{min: 1, max: 1" + "0" * 300 + "}", "is too far for numbers to be drawn"),
        ("{min: -1e308, max: 1e308}", "is too far for numbers to be drawn"),
        ("{min: 1, max: .inf}", "parameters.x.max: give a number, and not inf"),
        ("{values: [1e400, 2]}", "parameters.x.values: 1e400 is a number beyond all range"),
        ("{value: {deep: [-1e999]}}", "parameters.x.value.deep: -1e999 is a number beyond all range"),
        ("{min: 1, max: 1e400}", "parameters.x.max: 1e400 is a number beyond all range"),
        ("{min: 1, max: 1e4, distribution: log_uniform}", "beyond all range"),
        ("{value: " + "[" * 3000 + "]" * 3000 + "}", "brackets more than 32 deep"),
        ("{value: '" + "x" * (1 << 20) + "'}", "1048576 are the most"),
        ('{value: "\\ud800"}', "half of a surrogate pair"),
        ('{value: "a\\0b"}', "holds a NUL"),
        ("{min: '1e-6', max: 1}", "parameters.x.min: give a number, and not '1e-6'"),
    ],
)
def test_values_that_no_option_can_have(value, sentence, tmp_path):
    assert sentence in said(tmp_path / "s.yaml", HEAD + value)


def test_aliases_that_repeat_themselves_are_refused_small(tmp_path):
    levels = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, before in zip("bcdefgh", "abcdefg", strict=True):
        levels.append(f"{one}: &{one} [{', '.join(['*' + before] * 9)}]")
    assert "more than 100000 values" in said(tmp_path / "s.yaml", "\n".join([*levels, "method: *h"]))
    chain = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000))]
    assert "brackets more than 32 deep" in said(tmp_path / "s.yaml", "\n".join(chain))
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "{values: &v [1, 2]}\n  y: {values: *v}")
    assert load(path).parameters["y"] == Choice((1, 2))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1e6", 1e6),
        ("-2E+3", -2e3),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("1.5", 1.5),
        ("3", 3),
        ("1_0.5", 10.5),
    ],
)
def test_numbers_are_those_of_today(text, value, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + f"{{values: [{text}]}}\n  y: {{min: {text}, max: 1e30}}")
    found = load(path).parameters
    assert found["x"].values == (value,) and type(found["x"].values[0]) is type(value)
    assert found["y"].low == value and yaml.safe_load(option("a", value).removeprefix("--a=")) == value


def test_a_grid_of_a_billion_points_is_not_built(tmp_path):
    sweep = load(written(tmp_path, parameters={"a": {"min": 1, "max": 10**9}, "b": {"values": ["x", "y"]}}))
    assert sweep.size == 2 * 10**9
    assert list(itertools.islice(sweep.grid(), 3)) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}]


@settings(max_examples=300)
@given(text=st.one_of(st.text(), st.text("{}[]&*a:-!#|>1e. \n'\"\t?,%@").map(lambda text: HEAD + text)))
def test_any_file_is_a_sweep_or_a_sentence(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        json.dumps(load(path).identity())
    except SweepError as error:
        assert str(error).startswith(f"{path}") and len(str(error)) < 900
