"""Rows of JSON lines and of Parquet are read alike."""

import gzip
import json
import math

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from atmanrl.errors import UserError
from atmanrl.io import rows


def test_parquet_is_read_as_json_lines_are(tmp_path):
    objects = [{"prompt": [{"role": "user", "content": "é?"}], "gold": k, "none": None} for k in range(600)]
    write_table(pa.Table.from_pylist(objects), tmp_path / "data.of_any_name")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, objects)))
    one, two = (list(rows.read(tmp_path / name)) for name in ("data.of_any_name", "t.jsonl"))
    assert one == two and [line.number for line in one] == list(range(1, 601))


def test_numbers_that_are_not_finite_are_null(tmp_path):
    write_table(pa.table({"reward": [1.0, math.nan, math.inf], "all": [[math.nan], [2.0], []]}), tmp_path / "t.parquet")
    assert [line.row for line in rows.read(tmp_path / "t.parquet")] == [
        {"reward": 1.0, "all": [None]}, {"reward": None, "all": [2.0]}, {"reward": None, "all": []}
    ]  # fmt: skip


def test_a_text_that_is_too_long_is_a_faulty_row(tmp_path):
    write_table(pa.table({"prompt": ["a", "a" * 1_000_001]}), tmp_path / "t.parquet")
    good, bad = rows.read(tmp_path / "t.parquet")
    assert (
        good.row == {"prompt": "a"}
        and bad.fault == "field 'prompt' holds no text that can be used (1000001 characters)."
    )


def test_damaged_parquet_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"t\.parquet is no Parquet file that can be read \(.+\); write it again"):
        list(rows.read(tmp_path / "t.parquet"))


OBJECTS = [{"prompt": "é?", "gold": k} for k in range(3)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda text: b"\xef\xbb\xbf \n" + text])
def test_an_array_is_read_as_json_lines_are(tmp_path, indent, pack):
    path = tmp_path / "t.json"
    path.write_bytes(pack(json.dumps(OBJECTS, indent=indent, ensure_ascii=False).encode()))
    assert [(line.number, line.row, line.fault) for line in rows.read(path)] == [
        (k + 1, row, "") for k, row in enumerate(OBJECTS)
    ]


def test_gzip_is_read_as_what_it_holds(tmp_path):
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress("\n\n".join(map(json.dumps, OBJECTS)).encode()))
    assert [(line.number, line.row) for line in rows.read(tmp_path / "t.jsonl.gz")] == [
        (2 * k + 1, row) for k, row in enumerate(OBJECTS)
    ]


def test_a_faulty_row_of_an_array_is_named_by_its_number(tmp_path):
    (tmp_path / "t.json").write_text(f'[{{"a": 1}}, 2, {{"b": "{"a" * 1_000_001}"}}]')
    assert [(line.number, line.fault) for line in rows.read(tmp_path / "t.json")] == [
        (1, ""), (2, "must be a JSON object, not int."),
        (3, "field 'b' holds no text that can be used (1000001 characters)."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b'[{"a": 1}, {"a":',
            r"begins as a JSON array and is none .*: not JSON \(Expecting value at column 17",
        ),
        (gzip.compress(b'{"a": 1}\n' * 50, mtime=0)[:-12], "is no gzip file that can be read"),
        (b"\x1f\x8bno more", "is no gzip file that can be read"),
        (b"[NaN]", "NaN is no number there"),
    ],
)
def test_what_cannot_be_read_whole_is_named(tmp_path, content, says):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UserError, match=rf"t {says}" if "array" in says or "gzip" in says else says):
        list(rows.read(tmp_path / "t"))


def test_lines_of_lists_are_faulty_lines(tmp_path):
    (tmp_path / "t.jsonl").write_text("[1]\n[2]\n")
    assert [(line.number, line.fault) for line in rows.read(tmp_path / "t.jsonl")] == [
        (1, "must be a JSON object, not list."), (2, "must be a JSON object, not list.")
    ]  # fmt: skip
