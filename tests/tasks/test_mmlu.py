import json
import re
from collections import Counter
from pathlib import Path

import datasets
import pytest

from atmanrl.tasks import MMLU, Problem, TaskError
from atmanrl.tasks.mmlu_subjects import CATEGORIES, CATEGORY_OF


def row(question="What?", choices=("red", "blue", "green", "black"), answer=1, subject="virology"):
    return {"subject": subject, "question": question, "choices": list(choices), "answer": answer}


def write(folder: Path, **parts):
    """Write the parts of the data, each a list of rows or of lines; what is not given holds one row of its own."""
    for part in ("dev", "val", "test"):
        parts.setdefault(part, [row(f"One of {part}?")])
    for part, rows in parts.items():
        lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
        (folder / f"{part}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(folder)


def test_a_row_becomes_a_problem(tmp_path):
    rows = [row(" Which colour\nis it? ", answer=2), row("Which?", ["1", "2 ", "", "4"], "D", "high_school_physics")]
    task = MMLU(write(tmp_path, test=[rows[0], "", rows[1]]))
    first, second = task.problems("test")
    text = "Which colour\nis it?\nA. red\nB. blue\nC. green\nD. black"
    columns = {"choices": ("red", "blue", "green", "black")}
    assert first == Problem("mmlu/test/virology/0", text, "C", columns=columns)
    columns = {"choices": ("1", "2", "", "4")}
    assert second == Problem("mmlu/test/high_school_physics/1", "Which?\nA. 1\nB. 2\nC. \nD. 4", "D", columns=columns)
    told = (
        "Reason step by step. Then write ##### followed by the letter of the right choice alone, for example: ##### C"
    )
    assert task.prompt(first) == f"{text}\n\n{told}"
    assert MMLU(task.path, instruction="").prompt(first) == text
    assert task.is_right(" (c) green", first)
    assert not task.is_right("C or D", first) and not task.is_right("green", first)


def test_the_training_split_is_dev_and_val_and_auxiliary_train_on_demand(tmp_path):
    path = write(tmp_path, auxiliary_train=[{**row("Other?"), "subject": ""}, {**row("And?"), "subject": None}])
    assert [p.id for p in MMLU(path).problems("train")] == ["mmlu/dev/virology/0", "mmlu/val/virology/0"]
    found = MMLU(path, auxiliary=True).problems("train")
    assert [p.id for p in found[2:]] == ["mmlu/auxiliary_train/0", "mmlu/auxiliary_train/1"]
    with pytest.raises(TaskError, match="auxiliary_train has no subjects"):
        MMLU(path, auxiliary=True, categories=["STEM"])


def test_validation_is_another_name_of_val(tmp_path):
    path = write(tmp_path)
    (tmp_path / "val.jsonl").rename(tmp_path / "validation.jsonl")
    assert len(MMLU(path).problems("train")) == 2


def test_duplicates_and_contamination_are_dropped_and_counted(tmp_path):
    twisted = row(" what?  ", ["BLACK", "red", "green", "blue"], 3, "anatomy")
    path = write(
        tmp_path,
        dev=[row("Only here?"), row(), row("Here and there?")],
        val=[row("Here and there?"), row("Twice?", ["x", "y", "x", "z"], 2), row("Harmless?", ["x", "y", "x", "z"], 1)],
        test=[row(), twisted, row(choices=["red", "blue", "green", "white"])],
    )
    task = MMLU(path)
    assert [p.id for p in task.problems("test")] == ["mmlu/test/virology/0", "mmlu/test/virology/2"]
    train = [p.id for p in task.problems("train")]
    assert train == ["mmlu/dev/virology/0", "mmlu/dev/virology/2", "mmlu/val/virology/2"]
    assert task.dropped == {
        "test": Counter({"same question again": 1}),
        "train": Counter({"in the test split": 1, "same question again": 1, "right choice twice": 1}),
    }
    assert train == [p.id for p in MMLU(path).problems("train")]


def test_a_choice_of_subjects_brings_no_duplicate_back(tmp_path):
    path = write(tmp_path, dev=[row(subject="anatomy")], test=[row("New?", subject="anatomy"), row()])
    assert [p.id for p in MMLU(path, subjects=["anatomy"]).problems("test")] == ["mmlu/test/anatomy/0"]
    with pytest.raises(TaskError, match="holds no train problem of these subjects"):
        MMLU(path, subjects=["anatomy"]).problems("train")


def test_subjects_and_categories(tmp_path):
    path = write(tmp_path, test=[row(f"{s}?", subject=s) for s in CATEGORY_OF])
    found = {c: {p.id.split("/")[2] for p in MMLU(path, categories=[c]).problems("test")} for c in CATEGORIES}
    assert found == {category: set(subjects) for category, subjects in CATEGORIES.items()}
    both = MMLU(path, subjects=["virology"], categories=["Social_Sciences"])
    assert both.subjects == {"virology", *CATEGORIES["social sciences"]}
    assert len(MMLU(path).problems("test")) == 57


def test_the_original_grouping():
    assert {c: len(s) for c, s in CATEGORIES.items()} == {
        "STEM": 18, "humanities": 13, "social sciences": 12, "other": 14,
    }  # fmt: skip
    assert len(CATEGORY_OF) == 57


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"subjects": ["high school physic"]}, "no subject 'high school physic': perhaps high_school_physics"),
        ({"subjects": ["zzz"]}, "no subject 'zzz': they are named like"),
        ({"categories": ["science"]}, "no category 'science': use one of STEM, humanities, social sciences, other"),
        ({"subjects": []}, "are empty; leave them out"),
    ],
)
def test_unknown_subjects_and_categories(chosen, message):
    with pytest.raises(TaskError, match=message):
        MMLU("nowhere", **chosen)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "must be a JSON object, not list"),
        (row(subject=None), "`subject` is None, which is none of MMLU's 57"),
        (row(subject="physics"), "`subject` is 'physics'"),
        (row(subject=["virology"]), "`subject` is"),
        (row(question=" "), "has no text in `question`"),
        (row(question=7), "has no text in `question`"),
        (row(choices=["a", "b", "c"]), "`choices` must be a list of 4 texts"),
        ({**row(), "choices": "abcd"}, "`choices` must be a list of 4 texts"),
        (row(choices=["a", "b", "c", 4]), "`choices` must be a list of 4 texts"),
        (row(answer=4), "`answer` is 4; it must be 0 to 3, or A to D"),
        (row(answer=-1), "`answer` is -1"),
        (row(answer=True), "`answer` is True"),
        (row(answer="E"), "`answer` is 'E'"),
        (row(answer=""), "`answer` is ''"),
        (row(answer=None), "`answer` is None"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message):
    path = write(tmp_path, val=[row(), "", line])
    with pytest.raises(TaskError, match=f"^{re.escape(str(tmp_path / 'val.jsonl'))}, line 3: {message}"):
        MMLU(path).problems("train")


def test_missing_files_and_splits(tmp_path):
    path = write(tmp_path)
    with pytest.raises(TaskError, match="no split 'val': use one of train, test"):
        MMLU(path).problems("val")
    with pytest.raises(TaskError, match="nowhere: does not exist; --data.task.path"):
        MMLU(str(tmp_path / "nowhere")).problems("test")
    with pytest.raises(TaskError, match="dev.jsonl: is not a folder"):
        MMLU(str(tmp_path / "dev.jsonl")).problems("test")
    with pytest.raises(TaskError, match="auxiliary_train.jsonl: does not exist; put"):
        MMLU(path, auxiliary=True).problems("train")
    (tmp_path / "val.jsonl").write_text("\n")
    with pytest.raises(TaskError, match="its val split holds no rows"):
        MMLU(path).problems("train")


def test_the_hub(monkeypatch):
    calls = []

    def load_dataset(*args, split):
        calls.append((*args, split))
        return datasets.Dataset.from_list([row(f"{split}?"), row(f"{split}??", answer=7 if split == "test" else 0)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(TaskError, match="^cais/mmlu, split test, row 1: `answer` is 7"):
        MMLU().problems("test")
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, split: load_dataset(*a, split=split).select([0]))
    calls.clear()
    assert [p.id for p in MMLU(hub_name="me/mmlu").problems("train")] == ["mmlu/dev/virology/0", "mmlu/val/virology/0"]
    assert calls == [("me/mmlu", "all", split) for split in ("test", "dev", "validation")]


def test_an_unreachable_hub(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("Couldn't reach\nit")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(TaskError, match=r"^cais/mmlu: cannot be loaded .*ConnectionError: Couldn't reach\); give a"):
        MMLU().problems("test")


def test_the_real_files(shared_data):
    folder = shared_data / "mmlu"
    if not folder.is_dir():
        pytest.skip(f"no MMLU at {folder}")
    task = MMLU(str(folder))
    train, test = task.problems("train"), task.problems("test")
    assert len(train) + task.dropped["train"].total() == 285 + 1531
    assert len(test) + task.dropped["test"].total() == 14042
    assert not {p.question for p in train} & {p.question for p in test}
    assert len({p.id for p in [*train, *test]}) == len(train) + len(test)
    assert {p.id.split("/")[2] for p in test} == set(CATEGORY_OF) == {p.id.split("/")[2] for p in train}
    assert all(task.is_right(p.gold, p) for p in test)
    parts = [MMLU(str(folder), categories=[category]).problems("test") for category in CATEGORIES]
    assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in test)


def test_the_texts_of_the_choices_are_passed_over(tmp_path):
    choices = ["paralysis of the face", "Vitamin C", "If A is true, then B is false.", "A city in France"]
    task = MMLU(write(tmp_path, test=[row(choices=choices, answer=0)]))
    (problem,) = task.problems("test")
    for frame in (
        "{} {}",
        "**{}** {}",
        "{}. {}",
        "({}) {}",
        "The answer is {}: {}",
        "{} - {}",
        "I choose {} because {}",
    ):
        for letter, choice in zip("ABCD", choices, strict=True):
            assert task.is_right(frame.format(letter, choice), problem) == (letter == "A")
            assert task.can_read(frame.format(letter, choice.lower()), problem)
    for choice in choices:
        for frame in ("{}", "The answer is {}.", "**{}**", "It is {}"):
            assert not task.can_read(frame.format(choice), problem)
            assert not task.can_read(frame.format(choice).lower(), problem)


def test_a_choice_that_is_a_letter_stays_one(tmp_path):
    task = MMLU(write(tmp_path, test=[row(choices=["A", "B", "AB", "O"], answer=1)]))
    (problem,) = task.problems("test")
    assert task.is_right("B", problem) and task.is_right("(B)", problem)
    assert not task.is_right("AB", problem)
