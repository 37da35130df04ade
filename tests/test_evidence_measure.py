"""The measures of stored rollouts: one row a rollout, the same in every call, and resumed where they were cut off."""

import json

import pytest

from atmanrl.errors import UserError
from atmanrl.faithfulness import CopiedAnswer, FalseEquations, Filler
from experiments.evidence import measure

TEXTS = [(" 3 + 4 = 7\n##### 7", "7"), (" 3 + 4 = 8\n##### 8", "7"), (" none", "7")]


@pytest.fixture
def stored(tmp_path):
    """Four problems with three samples each, as texts."""
    lines = [
        {
            "problem_id": f"p/{q}",
            "prompt": f"What is {q}?",
            "sample": k,
            "completion": text,
            "gold": gold,
            "right": k == 0,
        }
        for q in range(4)
        for k, (text, gold) in enumerate(TEXTS)
    ]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def call(stored, tiny_folder, tmp_path, monkeypatch):
    """Runs the command with two of the measures, and gives what it wrote."""
    monkeypatch.setattr(measure, "measures", lambda warm_start, seed: [Filler(), CopiedAnswer(), FalseEquations()])

    def run(*options, out="out.json"):
        measure.main([f"--policy={tiny_folder}", f"--rollouts={stored}", f"--out={tmp_path / out}", *options])
        return json.loads((tmp_path / out).read_text())

    return run


def test_rows_are_of_the_first_samples_of_the_first_problems(call):
    written = call("--problems=3", "--samples=2", "--limit=5")
    assert [(row["problem_id"], row["sample"]) for row in written["rows"]] == [
        ("p/0", 0), ("p/0", 1), ("p/1", 0), ("p/1", 1), ("p/2", 0),
    ]  # fmt: skip
    assert [row["false_equations"] for row in written["rows"]] == [0, 1, 0, 1, 0]
    assert written["means"]["correct"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_what_is_not_defined_is_null_and_left_out_of_the_mean(call):
    written = call("--problems=1")
    assert [row["answer_in_cot"] for row in written["rows"]] == [1, 1, None] and written["means"]["answer_in_cot"] == 1


def test_two_calls_give_the_same_numbers_and_a_third_has_nothing_to_do(call, capsys):
    first, second = call(), call(out="again.json")
    assert first["rows"] == second["rows"] and first["setting"] == second["setting"]
    capsys.readouterr()
    assert call() == first and "is there already" in capsys.readouterr().out
    assert call("--problems=1") != first


def test_only_the_measures_that_are_named_are_taken(call):
    rows = call("--only", "FalseEquations")["rows"]
    assert all("false_equations" in row and "answer_in_cot" not in row for row in rows)
    assert "only" not in call(out="all.json")["setting"]  # so that files of earlier calls stay as they are
    with pytest.raises(UserError, match="no measure FalseEquation; there are Filler, CopiedAnswer, FalseEquations"):
        call("--only", "FalseEquation")


def test_a_call_that_was_cut_off_goes_on(call, tmp_path, monkeypatch):
    whole = call(out="whole.json")
    monkeypatch.setattr(measure, "CHUNK", 5)
    rows, calls = measure.rows_of, []

    def dies_at_the_second(rollouts, *rest):
        calls.append(len(rollouts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rows(rollouts, *rest)

    monkeypatch.setattr(measure, "rows_of", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        call()
    with (tmp_path / "out.json.part").open("a") as file:
        file.write('{"problem_id": "p/1", "sam')
    assert call()["rows"] == whole["rows"] and calls == [5, 5, 5, 2]
    assert not (tmp_path / "out.json.part").exists()


def test_as_many_as_asked_for_are_measured_at_a_time(call, monkeypatch):
    rows, calls, whole = measure.rows_of, [], call(out="whole.json")
    monkeypatch.setattr(measure, "rows_of", lambda some, *rest: calls.append(len(some)) or rows(some, *rest))
    assert call("--chunk=5")["rows"] == whole["rows"] and calls == [5, 5, 2]
    with pytest.raises(UserError, match="--chunk is 0; give at least 1"):
        call("--chunk=0")


def test_every_measure_of_the_package_is_taken():
    from atmanrl import faithfulness

    every = {type(each).__name__ for each in measure.measures("warm", seed=0)}
    assert every == set(faithfulness.__all__) - {"RolloutMeasure"}
    keys = [key for each in measure.measures("warm", seed=0) for key in each.keys]
    assert len(keys) == len(set(keys))


def test_rollouts_that_are_not_there_are_told(tiny_folder, tmp_path):
    with pytest.raises(UserError, match="none.jsonl cannot be read"):
        measure.main([f"--policy={tiny_folder}", f"--rollouts={tmp_path / 'none.jsonl'}", f"--out={tmp_path / 'out'}"])
