import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from atmanrl.tasks.answers import parse_number
from atmanrl.tasks.base import Problem, TaskError
from atmanrl.tasks.gsm8k import GSM8K

ROW = {"question": "A clip costs $24. Two?", "answer": "24*2 = $<<24*2=48>>48\nSo $<<48=48>>48.\n#### 1,048"}


def write(folder: Path, *lines: str | bytes, split: str = "train") -> Path:
    """Write a split's file from lines and return the file."""
    file = folder / f"{split}.jsonl"
    file.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return file


def answer(text: object) -> str:
    return json.dumps({"question": "?", "answer": text})


def test_a_row_becomes_a_problem(tmp_path):
    write(tmp_path, json.dumps(ROW), "", answer("#### -3"), answer("Five.\n##### 5"), split="test")
    problems = GSM8K(str(tmp_path)).problems("test")
    assert problems == [
        Problem("gsm8k/test/0", "A clip costs $24. Two?", "1048", "24*2 = $48\nSo $48."),
        Problem("gsm8k/test/1", "?", "-3", None),  # the blank line before it is no row
        Problem("gsm8k/test/2", "?", "5", "Five."),
    ]


def test_unusual_but_valid_files(tmp_path):
    question = "Caf\u00e9\u2028\u201cau lait\u201d"  # U+2028 ends a line for str.splitlines, not in JSONL
    line = json.dumps({"question": question, "answer": "#### 1"}, ensure_ascii=False)
    write(tmp_path, b"\xef\xbb\xbf" + line.encode() + b"\r")
    assert [problem.question for problem in GSM8K(str(tmp_path)).problems("train")] == [question]


def test_short_problems_keep_their_ids_and_are_counted(tmp_path):
    lines = [answer(text) for text in ("1.\n2.\n3.\n#### 3", "1.\n2.\n#### 2", "#### 0", "1.\n#### 1")]
    write(tmp_path, *lines)
    task = GSM8K(str(tmp_path), max_steps=2)
    assert [p.id for p in task.problems("train")] == ["gsm8k/train/1", "gsm8k/train/3"]
    assert task.size("train") == 2 and GSM8K(max_steps=2).size("train") is None
    write(tmp_path, lines[0])
    with pytest.raises(TaskError, match=r"train.jsonl: no solution has at most 2 lines; give a larger max_steps\.$"):
        task.problems("train")
    with pytest.raises(TaskError, match=r"max_steps is 0; give at least 1"):
        GSM8K(max_steps=0)


def test_prompt_and_judge(tmp_path):
    write(tmp_path, json.dumps(ROW))
    task = GSM8K(str(tmp_path))
    (problem,) = task.problems("train")
    told = "Reason step by step. Then write ##### followed by the final answer alone, for example: ##### 42"
    assert task.prompt(problem) == f"{ROW['question']}\n\n{told}"
    assert GSM8K(str(tmp_path), instruction="").prompt(problem) == ROW["question"]
    assert task.is_right(" $1,048.00.", problem)
    assert not task.is_right("48", problem)
    assert not task.is_right("", problem)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON .*column 2"),
        ("[1]", "must be a JSON object, not list"),
        ('{"answer": "#### 1"}', "no text in `question`; each row needs"),
        ('{"question": "?"}', "no text in `answer`; each row needs"),
        ('{"question": " ", "answer": "#### 1"}', "no text in `question`"),
        (answer(72), "no text in `answer`"),
        (answer("It is 72."), "holds no ####; it must end in"),
        (answer("It is 72.\n#### many"), "'many' after #### is not a number; write"),
        (answer("It is 72.\n####"), "'' after #### is not a number"),
        (b'{"question": "caf\xe9", "answer": "#### 1"}', "not UTF-8 .byte 18.; save"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message):
    file = write(tmp_path, json.dumps(ROW), "", line)
    with pytest.raises(TaskError, match=f"^{re.escape(str(file))}, line 3: .*{message}"):
        GSM8K(str(tmp_path)).problems("train")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file(tmp_path, content):
    file = tmp_path / "train.jsonl"
    file.write_bytes(content)
    with pytest.raises(TaskError, match=f"^{re.escape(str(file))}: holds no rows; download"):
        GSM8K(str(tmp_path)).problems("train")


def test_a_missing_folder_or_file(tmp_path):
    file = write(tmp_path, json.dumps(ROW))
    with pytest.raises(TaskError, match="nowhere: does not exist; --data.task.path"):
        GSM8K(str(tmp_path / "nowhere")).problems("train")
    with pytest.raises(TaskError, match="train.jsonl: is not a folder; --data.task.path"):
        GSM8K(str(file)).problems("train")
    with pytest.raises(TaskError, match="test.jsonl: does not exist; put"):
        GSM8K(str(tmp_path)).problems("test")


def test_an_unreadable_file(tmp_path, monkeypatch):
    write(tmp_path, json.dumps(ROW))

    def refuse(self, mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TaskError, match="train.jsonl: cannot be read .Permission denied.; check"):
        GSM8K(str(tmp_path)).problems("train")


def test_an_unknown_split(tmp_path):
    with pytest.raises(TaskError, match="no split 'validation': use one of train, test"):
        GSM8K(str(tmp_path)).problems("validation")


def test_a_home_folder(tmp_path, monkeypatch):
    write(tmp_path, json.dumps(ROW))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(GSM8K("~").problems("train")) == 1


def test_the_hub(monkeypatch):
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_list([ROW, {"question": "?", "answer": "none"}][: len(calls)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (problem,) = GSM8K(hub_name="someone/gsm8k").problems("test")
    assert (problem.id, problem.gold) == ("gsm8k/test/0", "1048")
    assert calls == [(("someone/gsm8k", "main"), {"split": "test"})]
    with pytest.raises(TaskError, match="^someone/gsm8k, split test, row 1: `answer` holds no ####"):
        GSM8K(hub_name="someone/gsm8k").problems("test")


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach\nit"), ValueError(), RuntimeError("odd")])
def test_an_unreachable_hub(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    message = rf"^openai/gsm8k: cannot be loaded .*{type(error).__name__}.* give their folder as --data.task.path\.$"
    with pytest.raises(TaskError, match=message) as caught:
        GSM8K().problems("train")
    assert caught.value.__cause__ is error


def test_a_local_dataset_folder(tmp_path, monkeypatch):
    """A folder that `datasets` understands, with a configuration named main, needs no network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "copy"
    (folder / "main").mkdir(parents=True)
    for split in ("train", "test"):
        write(folder / "main", json.dumps(ROW), split=split)
    card = "---\nconfigs:\n- config_name: main\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: main/{split}.jsonl\n" for split in ("train", "test"))
    (folder / "README.md").write_text(card + "---\n")
    assert [problem.gold for problem in GSM8K(hub_name=str(folder)).problems("train")] == ["1048"]


def test_importing_needs_neither_torch_nor_datasets():
    code = "import sys, atmanrl.tasks.gsm8k; print({'torch', 'datasets', 'lightning'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    printed = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True).stdout
    assert printed == "set()\n"


@pytest.mark.parametrize(("split", "rows", "commas"), [("train", 7473, 79), ("test", 1319, 14)])
def test_the_real_files(shared_data, split, rows, commas):
    folder = shared_data / "gsm8k"
    if not folder.is_dir():
        pytest.skip(f"no GSM8K at {folder}")
    task = GSM8K(str(folder))
    problems = task.problems(split)
    assert len(problems) == rows
    assert [problem.id for problem in problems] == [f"gsm8k/{split}/{index}" for index in range(rows)]
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    written = [json.loads(line)["answer"].split("#### ")[1] for line in lines if line]
    assert sum("," in text for text in written) == commas
    for problem, text in zip(problems, written, strict=True):
        assert re.fullmatch(r"-?[0-9]+", problem.gold)
        assert parse_number(problem.gold) == int(problem.gold)
        assert task.is_right(text, problem)
        assert problem.solution and not re.search("<<|>>|##", problem.solution)
