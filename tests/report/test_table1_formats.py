import json
import math
import re

import numpy as np
import pytest
from test_table1 import ATMANRL, BASELINE, COLUMNS

from atmanrl.report.table1 import build
from atmanrl.report.table1_formats import as_json, latex, markdown

HOSTILE = r"a_b & 50% #1 $x^2$ {y} \z ~ <b>|\"q\"| [w] `c` *d*"


def drawn(row):
    return {key: np.linspace(0.9 * value, 1.1 * value, 101) for key, value in row.items() if not math.isnan(value)}


@pytest.fixture
def table():
    return build(
        {HOSTILE: ATMANRL, "baseline": BASELINE},
        "baseline",
        COLUMNS,
        {HOSTILE: drawn(ATMANRL), "baseline": drawn(BASELINE)},
    )


def test_cells(table):
    cell = table.rows[HOSTILE]["pass_at_4"]
    assert cell.shown == "94.0" and cell.shown_change == "-4.0 pts" and cell.interval == pytest.approx((85.07, 102.93))
    tokens = table.rows[HOSTILE]["tokens_per_cot"]
    assert tokens.shown_change == "-28 %"
    # both runs were drawn alike here, and their ratio never changed
    assert tokens.change_interval == pytest.approx((-28.1, -28.1))
    assert table.rows[HOSTILE]["stop_words_pct"].change is None and math.isnan(
        table.rows[HOSTILE]["symbols_pct"].change
    )
    assert table.rows["baseline"]["tokens_per_cot"].change is None


@pytest.mark.parametrize(("value", "shown"), [(50.1, "±0 %"), (49.9, "±0 %"), (55.0, "+10 %"), (32.0, "-36 %")])
def test_changes_are_printed_as_the_paper_does(value, shown):
    row = build({"a": {**BASELINE, "tokens_per_cot": value}, "b": BASELINE}, "b", COLUMNS).rows["a"]
    assert row["tokens_per_cot"].shown_change == shown and row["pass_at_1"].shown_change == "±0.0 pts"


def test_markdown_has_one_cell_a_value(table):
    lines = markdown(table).splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines[:4]]
    assert all(len(row) == 9 for row in rows)
    assert r"a\_b &amp; 50%" in lines[2] and r"&lt;b&gt;\|" in lines[2] and r"\`c\` \*d\*" in lines[2]
    assert "36.0 (-28 %)<br>[32.5, 39.4]" in lines[2]
    assert "bootstrap" in lines[-1]


def test_latex_is_escaped(table):
    text = latex(table)
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert body[0] == r"\begin{tabular}{lrrrrrr}" and body[-1] == r"\end{tabular}"
    assert body[4].startswith(
        r"{a\_b \& 50\% \#1 \$x\textasciicircum{}2\$ \{y\} \textbackslash{}z \textasciitilde{} \textless{}b\textgreater{}"
    )
    for line in body:
        # what is left without its escapes has balanced braces, no comment, and the columns' six separators
        bare = re.sub(r"\\[\\{}$&#%_]", "", line.removesuffix(r" \\"))
        assert not re.search(r"[#%_~^]", bare), line
        depth = 0
        for c in bare:
            depth += (c == "{") - (c == "}")
            assert depth >= 0
        assert depth == 0 and bare.count("$") % 2 == 0
        if line.endswith(r" \\"):
            assert bare.count("&") == 6
    assert r"36.0 ($-$28\,\%)" in text and r"94.0 ($-$4.0 pts)" in text and r"{\scriptsize [32.5, 39.4]}" in text
    # nothing that \\ could take for its argument
    assert not re.search(r"\\\\\s*[\[*]", text)


def test_a_line_end_in_a_name_breaks_nothing():
    table = build({"two\nlines": BASELINE}, None, COLUMNS)
    assert "two lines" in markdown(table) and "{two lines}" in latex(table)
    assert len(markdown(table).splitlines()) == 3


def test_json_holds_what_the_table_shows(table):
    stored = json.loads(json.dumps(as_json(table)))
    assert stored["baseline"] == "baseline" and stored["changes"]["pass_at_1"] == "points"
    for method, row in table.rows.items():
        for key, cell in row.items():
            written = stored["rows"][method][key]
            np.testing.assert_equal(written["value"], cell.value)
            assert ([written["low"], written["high"]] if cell.interval else None) == (
                cell.interval and list(cell.interval)
            )
            np.testing.assert_equal(written["change"], cell.change)
