"""A folder of files of rows is read as one file: those that hold rows, in the order of their names."""

import gzip
import json

import datasets
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from atmanrl.errors import UserError
from atmanrl.io.folders import mark
from atmanrl.io.row_files import RowFiles

LM_EVAL = {"doc_id": 0, "doc": {}, "arguments": [["3 + 4?", {}]], "resps": [["7"]], "target": "7"}


def fill(folder, **files):
    """Write files by their names, in which `__` is a slash and `_o_` a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_o_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def lines(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def names(folder) -> list[str]:
    return [str(file.relative_to(folder)) for file in RowFiles(folder).files]


def test_numbers_run_on_and_places_do_not(tmp_path):
    fill(tmp_path, a_o_jsonl_o_gz=gzip.compress(lines({"a": 1}, {"a": 2}).encode()),
         b_o_jsonl="\n" + lines({"a": 3}, {"a": 4}), c_o_json="[]", d_o_json=json.dumps([{"a": 5}], indent=1))  # fmt: skip
    write_table(pa.table({"a": [6]}), tmp_path / "e.parquet")
    files = RowFiles(tmp_path)
    read = list(files.read())
    assert [line.row["a"] for line in read] == [1, 2, 3, 4, 5, 6]
    assert [line.number for line in read] == [1, 2, 4, 5, 6, 7]
    places = ["a.jsonl.gz, line 1", "a.jsonl.gz, line 2", "b.jsonl, line 2", "b.jsonl, line 3", "d.json, line 1"]
    assert [files.place_within(line.number) for line in read] == [*places, "e.parquet, line 1"]
    assert files.place(5) == f"{tmp_path}/b.jsonl, line 3" and files.names() == (
        "a.jsonl.gz, b.jsonl, c.json, d.json and 1 more"
    )


def test_lm_evals_samples_are_taken_from_its_folder_alone(tmp_path):
    fill(tmp_path, my_model__samples_gsm8k_1_o_jsonl=lines(LM_EVAL),
         my_model__results_1_o_json=json.dumps({"r": 1}, indent=2), notes_o_jsonl=lines({"a": 1}))  # fmt: skip
    files = RowFiles(tmp_path)
    assert names(tmp_path) == ["my_model/samples_gsm8k_1.jsonl"]
    assert files.names(files.passed_over) == "my_model/results_1.json"


def test_trls_completions_are_taken_from_beside_its_models(tmp_path):
    fill(
        tmp_path,
        config_o_json='{\n "a": 1}',
        vocab_o_json='{"a": 1}',
        model_o_safetensors="",
        completions__README_o_md="#",
    )
    for step in (2, 10):
        write_table(pa.table({"step": [step]}), tmp_path / f"completions/completions_{step:05}.parquet")
    assert names(tmp_path) == ["completions/completions_00002.parquet", "completions/completions_00010.parquet"]
    assert [line.row["step"] for line in RowFiles(tmp_path / "completions").read()] == [2, 10]


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path):
    rows = [{"question": f"{k}?", "answer": f"#### {k}"} for k in range(5)]
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(str(tmp_path))
    assert names(tmp_path) == ["train/data-00000-of-00001.arrow"]
    assert [line.row for line in RowFiles(tmp_path).read()] == rows


def test_hidden_files_and_what_a_probe_wrote_are_passed_over(tmp_path):
    fill(
        tmp_path,
        part__a_o_jsonl=lines({"a": 1}),
        _o_cache__b_o_jsonl=lines({"a": 2}),
        probed__traces_o_jsonl=lines({"a": 3}),
    )
    mark(tmp_path / "probed", "probe")
    assert names(tmp_path) == ["part/a.jsonl"] and names(tmp_path / "probed") == ["traces.jsonl"]


@pytest.mark.parametrize(
    ("files", "held"),
    [
        ({}, "nothing"),
        ({"a_o_csv": "a,b", "config_o_json": "{}"}, "a.csv, config.json"),
        ({f"{name}_o_txt": "" for name in "abcde"}, "a.txt, b.txt, c.txt, d.txt ..."),
    ],
)
def test_a_folder_without_rows_is_refused_by_what_it_holds(tmp_path, files, held):
    with pytest.raises(UserError) as caught:
        RowFiles(fill(tmp_path, **files))
    assert f"the traces {tmp_path} cannot be read: the folder holds no file of rows that can be read ({held})" in str(
        caught.value
    )


def test_damaged_arrow_is_named(tmp_path):
    fill(tmp_path, a_o_arrow=b"\xff\xff\xff\xff\x10\x00\x00\x00 and no more")
    with pytest.raises(UserError, match=r"a\.arrow is no Arrow file that can be read"):
        list(RowFiles(tmp_path).read())
