import io
import json
import math
import subprocess
import sys

import pytest
from rich.console import Console

from atmanrl.metrics.columns import unrecorded
from atmanrl.report import ReportError, build, in_terminal, load_values, write_json
from atmanrl.report.runs import columns, load_tested
from atmanrl.report.table1_formats import as_json, latex, markdown

BASELINE = {
    "tokens_per_cot": 50.0,
    "numbers_pct": 40.0,
    "stop_words_pct": 20.0,
    "symbols_pct": 0.0,
    "pass_at_1": 0.9,
    "pass_at_4": 0.98,
}
ATMANRL = {
    "tokens_per_cot": 35.95,
    "numbers_pct": 50.0,
    "stop_words_pct": math.nan,
    "symbols_pct": 17.0,
    "pass_at_1": 0.905,
    "pass_at_4": 0.94,
}


COLUMNS = unrecorded(BASELINE)


def cells(rows, baseline="baseline"):
    """The rendered table as a reader sees it: one list of cells per line, the header first."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(in_terminal(build(rows, baseline, COLUMNS)))
    lines = [line.replace("┃", "│") for line in console.export_text().splitlines()]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]


def write(run, content):
    (run / "eval").mkdir()
    (run / "eval" / "test.json").write_text(content)
    return run


def test_a_tests_values_are_the_six_metrics(tmp_path):
    run = write(tmp_path, json.dumps({**BASELINE, "pass_at_4": 1, "symbols_pct": None, "problems": 500}))
    row = load_values(run)
    assert math.isnan(row.pop("symbols_pct"))
    assert row == {key: value for key, value in {**BASELINE, "pass_at_4": 1.0}.items() if key != "symbols_pct"}
    assert isinstance(row["pass_at_4"], float)


def test_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(ReportError, match=r"eval/test\.json does not exist: run `atmanrl test`"):
        load_values(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "JSON object, not list"),
        ("{", "not JSON"),
        (
            json.dumps({key: 1 for key in BASELINE if key[:2] not in ("pa", "nu")}),
            "lacks numbers_pct, pass_at_1:",
        ),
        (json.dumps({**BASELINE, "pass_at_1": "0.9"}), "pass_at_1 must be a number, got '0.9'"),
        (json.dumps({**BASELINE, "pass_at_1": True}), "pass_at_1 must be a number, got True"),
    ],
)
def test_unusable_file_is_named(tmp_path, content, message):
    with pytest.raises(ReportError, match=message) as error:
        load_values(write(tmp_path, content))
    assert "test.json" in str(error.value)


def test_the_table_compares_with_the_baseline():
    header, baseline, atmanrl = cells({"baseline": BASELINE, "atmanrl": ATMANRL})
    assert header == ["method", "tokens / CoT", "numbers %", "stop words %", "symbols %", "pass@1 %", "pass@4 %"]
    assert baseline == ["baseline", "50.0", "40.0", "20.0", "0.0", "90.0", "98.0"]
    assert atmanrl == ["atmanrl", "36.0 (-28 %)", "50.0 (+25 %)", "–", "17.0 (–)", "90.5 (+0.5 pts)",
                       "94.0 (-4.0 pts)"]  # fmt: skip


def test_the_table_leaves_the_warm_start_uncompared_and_keeps_the_order():
    rows = {"warm start": ATMANRL, "printed": BASELINE, "ours": ATMANRL}
    _, warm_start, printed, ours = cells(rows, baseline="printed")
    assert warm_start[0] == "warm start" and not any("(" in cell for cell in warm_start)
    assert printed[0] == "printed" and not any("(" in cell for cell in printed)
    assert ours[1] == "36.0 (-28 %)"


def test_the_table_needs_its_baseline():
    with pytest.raises(ReportError, match="no row 'baseline'.*: atmanrl"):
        build({"atmanrl": ATMANRL}, "baseline", COLUMNS)


def test_written_json_reads_back_and_is_strict(tmp_path):
    path = tmp_path / "new" / "table1.json"
    write_json({"baseline": BASELINE, "atmanrl": ATMANRL}, path)
    text = path.read_text()
    assert json.loads(text) == {"baseline": BASELINE, "atmanrl": {**ATMANRL, "stop_words_pct": None}}
    assert "NaN" not in text
    assert text.startswith('{\n  "baseline": {\n    "tokens_per_cot"')


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table1.json"
    write_json({"old": BASELINE}, path)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_json({"new": BASELINE}, path)
    assert list(json.loads(path.read_text())) == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_report_needs_no_torch():
    code = "import sys, atmanrl.report; print([m for m in ('torch', 'spacy', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_narrow_terminal_cuts_no_value():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(in_terminal(build({"baseline": BASELINE, "atmanrl": ATMANRL}, "baseline", COLUMNS)))
    text = console.export_text()
    assert "…" not in text
    assert "(-28" in text and "(-4.0" in text


def recorded(folder, **more):
    """A run whose test records its own columns."""
    (folder / "eval").mkdir(parents=True)
    column = {"title": "a | <b>_x_ %", "higher_is_better": False, "kind": "points"}
    test = {"mine": 0.25, "other": 3, "columns": {"mine": column}, **more}
    (folder / "eval/test.json").write_text(json.dumps(test))
    return folder


def test_recorded_columns_are_the_table(tmp_path):
    runs = load_tested([recorded(tmp_path / "ours"), recorded(tmp_path / "base", mine=0.5)])
    table = build({run.name: run.values for run in runs}, "base", columns(runs))
    assert [run.values for run in runs] == [{"mine": 0.25}, {"mine": 0.5}]
    cell = table.rows["ours"]["mine"]
    assert (cell.shown, cell.shown_change) == ("25.0", "-25.0 pts")
    assert r"| method | a \| &lt;b&gt;\_x\_ % |" in markdown(table)
    assert r"\_x\_ \%" in latex(table)
    assert as_json(table)["higher_is_better"] == {"mine": False}


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"columns": [1]}, "columns cannot be read"),
        ({"columns": {"mine": {"title": 3}}}, "columns cannot be read"),
        ({"columns": {"gone": {"title": "x"}}}, "lacks gone"),
        ({"mine": "much"}, "mine must be a number"),
    ],
)
def test_damaged_columns_are_told_by_file(tmp_path, more, sentence):
    with pytest.raises(ReportError, match=f"test.json.*{sentence}"):
        load_tested([recorded(tmp_path / "ours", **more)])


def test_columns_of_different_kinds_are_refused(tmp_path):
    share = {"columns": {"mine": {"title": "x", "kind": "share"}}}
    runs = load_tested([recorded(tmp_path / "ours"), recorded(tmp_path / "base", **share)])
    with pytest.raises(ReportError, match="mine is a value of kind 'points' in one and of 'share' in another; leave"):
        columns(runs)


def test_the_table_names_a_folder_that_is_no_runs(tmp_path):
    (tmp_path / "probed").mkdir()
    for name, says in {
        "probed": "probed is no run's folder: it has none of config",
        "nowhere": "nowhere is no folder",
    }.items():
        with pytest.raises(ReportError, match=says):
            load_tested([tmp_path / name])
