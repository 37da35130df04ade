"""Rows of JSON lines and of Parquet are read alike."""

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
