"""The reader of JSON lines: what is no row is told by its line, and nothing breaks the reader."""

import json
import time
import tracemalloc

import pytest
from hostile import TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from atmanrl.io import jsonl
from atmanrl.io.jsonl import RowError
from atmanrl.io.trace_schema import FIELDS, check_fields
from atmanrl.report.rollouts import PROBED, read_rollouts, read_saliencies
from atmanrl.report.runs import ReportError, load_values
from atmanrl.rollouts import traces
from atmanrl.tasks import GSM8K, MMLU

FAULTS = {
    b'{"a": "\\ud800"}': "field 'a' holds no text that can be used (half of a surrogate pair).",
    b'{"a": {"b": ["\\udc00"]}}': "field 'a' holds no text",
    b'{"\\ud800": 1}': "a key that UTF-8 cannot hold",
    b'{"a": 1' + b"0" * 400 + b"}": "field 'a' holds a number beyond all range.",
    b'{"a": 1' + b"0" * 5000 + b"}": "a number of thousands of digits",
    b'{"a": -1e400}': "field 'a' holds a number beyond all range.",
    b'{"a": NaN}': "not JSON (NaN is no number there; write null).",
    b'{"a": [-Infinity]}': "not JSON (-Infinity is no number",
    b"[" * 100_000: "brackets more than 64 deep",
    b'{"a": ' * 100_000: "brackets more than 64 deep",
    b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}": "field 'a' holds brackets more than 64 deep.",
    b'{"a": 1, "b": 2, "a": 1}': "the key 'a' stands twice",
    b'{"a": "' + b"x" * 1_000_001 + b'"}': "field 'a' holds no text that can be used (1000001 characters).",
    b"[1]": "must be a JSON object, not list.",
    b"null": "must be a JSON object, not NoneType.",
    b'{"a": 1} {"a": 1}': "not JSON (Extra data at column 10).",
    b'{"a": "caf\xe9"}': "not UTF-8 (byte 11)",
    '{"a": 1}'.encode("utf-16"): "not UTF-8 but UTF-16",
    b"\x00": "not JSON",
}


@pytest.mark.parametrize(("line", "reason"), FAULTS.items(), ids=map(str, range(len(FAULTS))))
def test_what_is_no_row_is_said(line, reason, tmp_path):
    with pytest.raises(RowError) as caught:
        jsonl.parse(line)
    assert reason in str(caught.value) and len(str(caught.value)) < 200
    if b"\n" not in line:
        (tmp_path / "t.jsonl").write_bytes(b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
        first, bad, last = jsonl.read(tmp_path / "t.jsonl")
        assert (first.row, last.row) == ({"a": 1}, {"a": 2}) and (bad.number, last.number) == (3, 4)
        assert bad.fault == str(caught.value) and bad.row == {}


def test_what_editors_and_systems_leave_in_a_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": "b\xe2\x80\xa8c"}\r\n  \r\n\xef\xbb\xbf\n\xef\xbb\xbf{"a": 2}\n{"a": "\\ud83d\\ude00"}'
    )
    assert [(line.number, line.row) for line in jsonl.read(path)] == [
        (1, {"a": "b\u2028c"}), (4, {"a": 2}), (5, {"a": "\U0001f600"})
    ]  # fmt: skip
    path.write_bytes(b'{"a": 1}\n{"a": "to')
    assert list(jsonl.read(path))[1].fault.endswith("The file ends within this line.")
    path.write_bytes(b"")
    assert list(jsonl.read(path)) == []


def test_a_line_without_end_takes_neither_time_nor_memory(tmp_path):
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": "' + b"x" * (10 << 20) + b'"}\n' + b"[" * (9 << 20) + b'\n{"a": 1}\n')
    tracemalloc.start()
    began = time.perf_counter()
    first, second, third = jsonl.read(path)
    assert time.perf_counter() - began < 1 and tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    assert first.fault == second.fault == "longer than 8 MiB." and third == jsonl.Line(3, {"a": 1})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(row=st.dictionaries(st.text(), values, max_size=5))
def test_what_is_written_is_read(row):
    assert jsonl.parse(jsonl.dumps(row).encode()) == json.loads(json.dumps(row)) == row


@settings(max_examples=300)
@given(line=st.one_of(st.binary(max_size=60), st.text('{}[]":,\\u0d8eE+-.1truefalsn \x00\ud800').map(
    lambda text: text.encode("utf-8", "surrogatepass"))))  # fmt: skip
def test_any_line_is_a_row_or_a_fault(line):
    try:
        row = jsonl.parse(line)
    except RowError:
        return
    jsonl.dumps(row).encode()


@pytest.mark.parametrize("text", TEXTS)
def test_hostile_texts_are_written_and_read_again(text):
    line = jsonl.dumps({"a": text}).encode()
    assert b"\n" not in line and json.loads(line) == {"a": text}
    if jsonl.is_text(text):
        assert jsonl.parse(line) == {"a": text}


@given(name=st.sampled_from(sorted(FIELDS)), value=values)
def test_a_field_is_what_the_schema_says_or_refused(name, value):
    try:
        check_fields({name: value})
    except RowError as error:
        assert str(error).startswith(f"field {name!r} must be ")
        return
    assert value is None or FIELDS[name][0](value)


TRACE = {
    "problem_id": "a/1", "sample": 0, "prompt": "?", "cot": "a", "answer": "1", "gold": "1", "right": True,
    "cot_tokens": 1, "saliency": [0.5], "pieces": ["a"], "rewards": {"saliency": 0.5}, "loss_initial": 2.0,
    "loss_final": 1.0,
}  # fmt: skip


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    return path


def test_every_reader_takes_a_byte_order_mark(tmp_path):
    write(tmp_path / "train.jsonl", {"question": "?", "answer": "so\n#### 2"})
    assert GSM8K(str(tmp_path)).problems("train")[0].gold == "2"
    write(
        tmp_path / "test.jsonl", {"subject": "virology", "question": "?", "choices": ["a", "b", "c", "d"], "answer": 1}
    )
    assert MMLU(str(tmp_path)).problems("test")[0].gold == "B"
    assert next(traces.read(write(tmp_path / "traces.jsonl", TRACE))) == (1, TRACE)
    write(tmp_path / "eval" / "test.jsonl", TRACE)
    write(tmp_path / PROBED, TRACE)
    assert read_rollouts(tmp_path)[0].length == 1 and read_saliencies(tmp_path)["a/1", "a"].saliency == [0.5]


@pytest.mark.parametrize(
    "line", [b'{"question": "\\ud800", "answer": "#### 2"}', b"[" * 100_000, b'{"x": 1' + b"0" * 400 + b"}"]
)
def test_every_reader_names_the_line_of_what_cannot_be_used(tmp_path, line):
    good = [{"question": "?", "answer": "#### 2"}, line]
    for name, read in {
        "train.jsonl": lambda path: GSM8K(str(path.parent)).problems("train"),
        "test.jsonl": lambda path: MMLU(str(path.parent)).problems("test"),
        "traces.jsonl": lambda path: list(traces.read(path)),
        "eval/test.jsonl": lambda path: read_rollouts(path.parent.parent),
        str(PROBED): lambda path: read_saliencies(path.parent.parent),
    }.items():
        first = (
            {"subject": "virology", "choices": ["a"] * 4, "answer": 0, "question": "?"}
            if name == "test.jsonl"
            else TRACE
        )
        path = write(tmp_path / name, good[0] if name == "train.jsonl" else first, line)
        with pytest.raises(ValueError, match=f"{name}, line 2: ") as caught:
            read(path)
        assert isinstance(caught.value, jsonl.UserError)


@pytest.mark.parametrize(
    "change",
    [
        {"cot_tokens": -1}, {"cot_tokens": True}, {"cot_tokens": 1.5}, {"answer": 5}, {"sample": True}, {"right": "yes"},
        {"prompt": None}, {"problem_id": {}}, {"gold": []},
    ],
)  # fmt: skip
def test_a_report_refuses_rollouts_of_the_wrong_type(tmp_path, change):
    write(tmp_path / "eval" / "test.jsonl", TRACE, {**TRACE, **change})
    with pytest.raises(ReportError, match=f"test.jsonl, line 2: field '{next(iter(change))}'"):
        read_rollouts(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"loss_initial": {}}, {"loss_final": "1"}, {"saliency": [None]}, {"saliency": [0.5, 0.5]}, {"pieces": [1]},
        {"pieces": None}, {"rewards": {"saliency": "x"}}, {"rewards": []}, {"cot": 1},
    ],
)  # fmt: skip
def test_a_report_refuses_saliencies_of_the_wrong_type(tmp_path, change):
    write(tmp_path / PROBED, TRACE, {**TRACE, **change})
    with pytest.raises(ReportError, match="traces.jsonl, line 2: not a line of `atmanrl probe`"):
        read_saliencies(tmp_path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"pass_at_1": 1' + b"0" * 400 + b"}", b'{\n"a": }', b"\xff\xff"])
def test_a_tests_values_are_read_by_the_same_rules(tmp_path, text):
    write(tmp_path / "eval" / "test.json", text)
    with pytest.raises(ReportError, match="test.json: "):
        load_values(tmp_path)
