"""One corpus of hostile texts through every function of `escape`, and through every output that shows texts."""

import csv
import io
import json
import re
import unicodedata
from html.parser import HTMLParser
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from hostile import EVERYTHING, KEPT, TEXTS
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import WandbLogger
from rich.console import Console

from atmanrl.callbacks import RolloutTable
from atmanrl.callbacks.run_logger import RunLogger
from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.terminal import say_error, say_note
from atmanrl.metrics.columns import unrecorded
from atmanrl.metrics.conditions import TAGGER
from atmanrl.report import figure2, figure3
from atmanrl.report.comparisons import Comparison, Side
from atmanrl.report.curves import Curve
from atmanrl.report.report_page import Contents, page
from atmanrl.report.table1 import build, in_terminal
from atmanrl.report.table1_formats import latex, markdown
from atmanrl.rollouts import Completion, Parts, Rollout
from atmanrl.sweep import results
from atmanrl.sweep.space import Choice, Sweep
from atmanrl.tasks import Problem
from atmanrl.views import figure1, trace_page, trace_text

FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
texts = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(exclude_categories=()), max_size=40))


def harmless(text, kept="\n\t"):
    """Whether no terminal obeys anything in a text, and it can be written."""
    text.encode()
    turns = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return not [
        c for c in text if (unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in kept) or c in turns
    ]


def printed(*renderables, width=200):
    """What rich would write to a terminal without colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    for each in renderables:
        console.print(each)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())  # bold and dim are rich's own


KINDS = ("visible", "terminal", "line", "figure", "html", "latex", "markdown", "csv_cell")


@pytest.mark.parametrize("kind", [getattr(escape, name) for name in KINDS])
@given(text=texts)
def test_every_kind_of_output_is_harmless(kind, text):
    assert harmless(str(kind(text)))
    assert all(part in str(kind(KEPT)) for part in KEPT.split(" "))


@given(text=texts)
def test_each_kind_keeps_its_own_rules(text):
    assert "\n" not in escape.line(text) + escape.latex(text) + escape.markdown(text)
    ElementTree.fromstring(f'<a b="{escape.html(text)}">{escape.html(text)}</a>')
    assert not re.search(r"(?<!\\)[$&#%_{}]", re.sub(r"\\text\w+\{\}|\$\\pm\$", "", escape.latex(text)))
    assert not re.search(r"(?<!\\)[|`*_\[\]<>]", escape.markdown(text))
    cell = escape.csv_cell(text)
    assert not FORMULA.match(cell) or float(text) is not None


def test_numbers_are_no_formulas():
    for number in (-0.5, 3, None, True, "-0.5", "+3", "-1e-6"):
        assert escape.csv_cell(number) is number
    for text in ("-", "- 1", "-1 ", "=1", "@x", "-a"):
        assert escape.csv_cell(text) == f"'{text}"


def test_a_text_that_prints_stays_as_it_is():
    assert escape.visible("caf\u00e9\n\ta \\x1b" + KEPT) == "caf\u00e9\n\ta \\x1b" + KEPT
    assert escape.visible("a\r\nb\rc\x1b\u202e\ud800\U000e0041") == "a\nb\\x0dc\\x1b\\u202e\\ud800\\U000e0041"


def test_errors_and_notes_on_the_terminal(capsys):
    say_error(UserError(EVERYTHING))
    say_note(EVERYTHING)
    said = capsys.readouterr().err
    assert harmless(said) and said.count("atmanrl: error: \\x1b]52;") == 1 and KEPT in said


def view(**changed):
    options = {"token_texts": [*TEXTS, "", "x"], "saliency": [0.1] * (len(TEXTS) + 2), "note": EVERYTHING, **changed}
    return trace_page.TraceView(
        id=EVERYTHING, prompt=EVERYTHING, answer=EVERYTHING, gold=EVERYTHING, correct=True, reward=0.5, loss_initial=1.0,
        loss_final=0.5, **options,
    )  # fmt: skip


def rollouts():
    made = []
    for i, text in enumerate(TEXTS):
        rollout = Rollout(
            Problem(text, text, text), i, 0, text, [], Completion([], [], True), Parts(text, text, text, 3), True
        )
        rollout.rewards, rollout.notes = {EVERYTHING: 0.5}, {text: text}
        made.append(rollout)
    return made


def test_the_table_of_rollouts_and_the_explanation_in_the_terminal():
    callback = RolloutTable(every_n_updates=1, rollouts=len(TEXTS), characters=4000)
    callback.console = Console(file=io.StringIO(), width=300, force_terminal=True, color_system=None)
    trainer = SimpleNamespace(global_step=1, is_global_zero=True, loggers=[])
    callback.on_train_batch_end(trainer, None, {"experience": SimpleNamespace(rollouts=rollouts())}, None, 0)
    said = re.sub(r"\x1b\[[0-9;]*m", "", callback.console.file.getvalue())
    assert harmless(said) and "\\x1b]52;c;" in said and "[bold]markup[/bold]" in said
    for said in (trace_text.plain(view()), printed(trace_text.coloured(view()))):
        assert harmless(said) and "\\x1b]52;c;" in said and "\\ud83d" in said and "\\u202e" in said


def test_the_table_in_wandb():
    pytest.importorskip("wandb")
    logged = []
    run = SimpleNamespace(log=logged.append, config={}, define_metric=lambda *_, **__: None)
    callback = RolloutTable(every_n_updates=1)
    callback.console = Console(file=io.StringIO())
    trainer = SimpleNamespace(global_step=1, is_global_zero=True, loggers=[WandbLogger(experiment=run)])
    callback.on_train_batch_end(trainer, None, {"experience": SimpleNamespace(rollouts=rollouts())}, None, 0)
    sent = logged[0]["completions"]
    cells = [cell for row in [sent.columns, *sent.data] for cell in row if isinstance(cell, str)]
    assert len(sent.data) == len(TEXTS) and all(map(harmless, cells)) and escape.visible(TEXTS[0]) in cells


def table1():
    row = {"tokens_per_cot": 10.0, "numbers_pct": 1.0, "stop_words_pct": 2.0, "symbols_pct": 3.0, "pass_at_1": 0.5}
    conditions = {"tagger": (TAGGER, {EVERYTHING: ["a run"]})}
    return build({text: row for text in TEXTS}, TEXTS[0], unrecorded(row), conditions=conditions)


def test_tables_of_reports():
    assert harmless(printed(in_terminal(table1())))
    for text in (latex(table1()), markdown(table1())):
        assert harmless(text)
    rows = [line for line in markdown(table1()).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(TEXTS) and len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    body = latex(table1()).split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert body.count("\n{") == len(TEXTS) and "\\input{" not in body and "\\write18" not in body


class Elements(HTMLParser):
    """Names of all elements, and their texts."""

    def __init__(self, text):
        super().__init__()
        self.names, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_pages():
    side = Side(
        EVERYTHING, EVERYTHING, True, 3, [(t, "other") for t in TEXTS], [(t, 0.5, "0.5") for t in TEXTS], EVERYTHING
    )
    item = Comparison(EVERYTHING, EVERYTHING, EVERYTHING, [side], True)
    contents = Contents(EVERYTHING, EVERYTHING, notes=[EVERYTHING], table1=table1())
    contents.comparisons.items.append(item)
    plain = Elements(trace_page.page("T", [view(token_texts=["x"], saliency=[0.5])])).names.count("script")
    for html in (page(contents), trace_page.page(EVERYTHING, [view()], EVERYTHING), trace_page.fragment(view())):
        assert harmless(html)
        found = Elements(html)
        assert found.names.count("script") <= plain
        assert "alert(1)</script>" in "".join(found.texts) or "</script><script>alert(1)" in "".join(found.texts)


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_figures(tmp_path):
    curve = {"accuracy": Curve(np.arange(5.0), np.arange(5.0))}
    side = Side(EVERYTHING, EVERYTHING, True, 3, [(t, "other") for t in TEXTS], [(t, 0.5, "0.5") for t in TEXTS], "")
    item = Comparison(EVERYTHING, EVERYTHING, EVERYTHING, [side], True)
    mask, saliency = [[0.1] * len(TEXTS)] * len(TEXTS), [0.5] * len(TEXTS)
    made = {
        "one": figure1.draw(mask, saliency, [(0, 1.0)], TEXTS, init_value=-0.4, title=EVERYTHING),
        "two": figure2.draw({text: curve for text in TEXTS}, TEXTS[0]),
        "three": figure3.draw(item, 1.0),
    }
    for name, figure in made.items():
        for fonttype in ("none", "path"):
            figure2.save(figure, tmp_path / f"{name}.svg", fonttype)
            written = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
            assert harmless(written)
            ElementTree.fromstring(written)
    ElementTree.fromstring(figure2.inline(made["two"], "q", EVERYTHING).replace("xlink:", ""))


def sweep(tmp_path):
    spaces = {EVERYTHING: Choice(tuple(TEXTS)), "=b": Choice((1, 2))}
    return Sweep(tmp_path / "s.yaml", "grid", "@metric", "minimize", spaces, ("x", "${args}"))


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
def test_a_sweeps_table_plot_and_csv(tmp_path):
    same = {"state": "done", "@metric": -0.5, "seconds": 1.5}
    rows = [
        {"trial": i, **same, EVERYTHING: text, "=b": -i, "folder": text, "error": text} for i, text in enumerate(TEXTS)
    ]
    assert harmless(printed(results.table(sweep(tmp_path), rows, {1})))
    results.write_csv(tmp_path / "sweep.csv", rows)
    cells(tmp_path / "sweep.csv", 1 + len(TEXTS))
    assert results.draw(tmp_path / "sweep.png", sweep(tmp_path), rows[:4], {1})


def cells(path, count):
    """All rows of a CSV file; none of its texts would be calculated."""
    with path.open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert len(found) == count and len({len(row) for row in found}) == 1
    for cell in (cell for row in found for cell in row):
        assert harmless(cell) and (not FORMULA.match(cell) or json.loads(cell) is not None), cell
    return found


def test_metrics_csv(tmp_path):
    logger = RunLogger(str(tmp_path))
    logger.log_metrics({**{text: -0.5 for text in TEXTS}, "note": "=1+1"}, step=0)
    logger.save()
    logger.log_metrics({"later": 1.0, TEXTS[11]: 2.0}, step=1)
    logger.save()
    header, first, second = cells(tmp_path / "metrics.csv", 3)
    assert first[header.index("note")] == "'=1+1" and "-0.5" in first and "1.0" in second
