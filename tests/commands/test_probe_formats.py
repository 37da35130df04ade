"""`atmanrl probe` takes the traces of other tools, says once what it took for what, and names what it cannot take."""

import json

import pyarrow as pa
import pytest
from probe_runs import names, probe, read, write
from pyarrow.parquet import write_table

SAYS = {"prompt": "3 + 4?", "completion": "3 + 4 makes seven. The answer is 7.", "gold": 7}
THINKS = {"question": "3 + 4?", "response": "<think>3 + 4</think>7", "answer": 7}
BOXES = {
    "messages": [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": r"3 + 4 is \boxed{7}"}],
    "gold": 7,
}
GSM8K = {"question": "3 + 4?", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"}
CASES = {
    "sentence": (SAYS, "3 + 4 makes seven. ", 'the answer follows "The answer is" in 2 of 2 completions'),
    "thoughts": (THINKS, "<think>3 + 4", "(question -> prompt, response -> completion, answer -> gold)"),
    "box": (BOXES, "3 + 4 is ", "2 rows taken for chats"),
    "GSM8K": (GSM8K, "3 + 4 = 7\n", '"#####" is put between cot and answer'),
}


@pytest.mark.parametrize(("row", "cot", "said"), CASES.values(), ids=CASES)
def test_traces_of_other_tools_are_probed(tiny_folder, tmp_path, capsys, row, cot, said):
    path = write(tmp_path / "t.jsonl", [row, row])
    assert probe(tiny_folder, path, tmp_path / "out") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("atmanrl: note: t.jsonl: ")]
    assert len(notes) == 1 and said in notes[0]
    results = read(tmp_path / "out")
    assert [(t["prompt"], t["cot"], t["gold"]) for t in results] == [("3 + 4?", cot, "7")] * 2
    again = tmp_path / "out/traces.jsonl"  # what was written is a trace of ours, with its delimiter
    assert probe(tiny_folder, again, tmp_path / "again") == 0 and "note: traces.jsonl" not in capsys.readouterr().err
    assert [t["saliency"] for t in read(tmp_path / "again")] == [t["saliency"] for t in results]


def test_a_delimiter_that_is_given_is_taken(tiny_folder, tmp_path):
    row = {**SAYS, "completion": "3 + 4 = 7, so 7 The answer is 7."}
    assert probe(tiny_folder, write(tmp_path / "t.jsonl", [row]), tmp_path / "out", "--delimiter=so") == 0
    assert read(tmp_path / "out")[0]["cot"] == "3 + 4 = 7, "


def test_fields_are_named_and_remembered(tiny_folder, tmp_path, capsys):
    path = write(tmp_path / "t.jsonl", [{"ask": "3 + 4?", "out": {"text": "3 + 4 = 7. ##### 7"}, "right": 7}])
    options = ["--fields.prompt=ask", "--fields.completion=out.text", "--fields.gold=right"]
    assert probe(tiny_folder, path, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert (
        "line 1: field 'prompt' is missing; the row has the keys 'ask', 'out', 'right'" in error and "--fields" in error
    )
    assert probe(tiny_folder, path, tmp_path / "out", *options) == 0
    settings = json.loads((tmp_path / "out/summary.json").read_text())["settings"]
    assert settings["fields"] == {"prompt": "ask", "completion": "out.text", "gold": "right"}


def test_parquet_and_completions_that_nothing_marks(tiny_folder, tmp_path, capsys):
    write_table(pa.table({"prompt": ["3 + 4?"], "completion": ["so 7"], "gold": [7]}), tmp_path / "t.parquet")
    assert probe(tiny_folder, tmp_path / "t.parquet", tmp_path / "out") == 0
    assert "no mark of an answer is known in the completions (1): name it by --delimiter" in capsys.readouterr().err
    assert names(tmp_path / "out") == {"traces.jsonl", "summary.json", "index.html"}


def test_a_folder_is_probed_as_one_file_and_its_files_are_named(tiny_folder, tmp_path, capsys):
    folder, out = tmp_path / "lm", tmp_path / "out"
    (folder / "model").mkdir(parents=True)
    sample = {"doc_id": 0, "doc": {}, "arguments": [["3 + 4?", {}]], "resps": [[SAYS["completion"]]], "target": "7"}
    write(folder / "model/samples_a.jsonl", [sample, {**sample, "doc_id": 1}])
    write(folder / "model/samples_b.jsonl", [{**sample, "resps": [["seven"]]}, sample])
    write(folder / "model/results_a.json", ['{\n"results": 1}'])
    assert probe(tiny_folder, folder, out) == 0
    said, error = capsys.readouterr()
    assert "lm: 4 rows of model/samples_a.jsonl, model/samples_b.jsonl taken for lm-eval's samples (" in error
    assert "passed over: model/results_a.json." in error
    assert "no saliency: line 3: model/samples_b.jsonl, line 1: the completion has no delimiter" in said
    results = read(out)
    assert [t["line"] for t in results] == [1, 2, 4] and results[2]["file"] == "model/samples_b.jsonl, line 2"
    assert "model/samples_b.jsonl, line 2, " in (out / "index.html").read_text()
    write(folder / "model/samples_b.jsonl", [sample])
    assert (
        probe(tiny_folder, folder, out) == 1 and "the content of the traces file has changed" in capsys.readouterr().err
    )


def test_a_bad_row_of_a_folder_is_named_by_its_file(tiny_folder, tmp_path, capsys):
    (tmp_path / "t").mkdir()
    write(tmp_path / "t/a.jsonl", [SAYS])
    write(tmp_path / "t/b.jsonl", [SAYS, {"prompt": "?"}])
    assert probe(tiny_folder, tmp_path / "t", tmp_path / "out") == 1
    assert f"{tmp_path}/t/b.jsonl, line 2: needs 'cot'" in capsys.readouterr().err
    assert probe(tiny_folder, tmp_path / "t", tmp_path / "t") == 1
    assert "--out is the folder of the traces" in capsys.readouterr().err
