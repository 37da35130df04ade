"""`atmanrl report` as a whole: the files that it writes."""

# ruff: noqa: F401, F811
import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from run_folders import make, probe, report, rollout
from strict_html import EVIL, Strict

from atmanrl.__main__ import main
from atmanrl.metrics.columns import UNRECORDED
from atmanrl.report.gather import gather
from atmanrl.report.rollouts import read_rollouts
from atmanrl.report.runs import ReportError
from atmanrl.report.write import FILES, write


def names(folder):
    """The files in a report's folder but for its mark."""
    return {path.name for path in folder.iterdir()} - {".atmanrl-report"}


def test_a_report_of_two_runs(make, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    out = tmp_path / "out"
    assert report(out, make("ours", 1), make("base_line", 5), examples=3) == 0
    assert names(out) == set(FILES)
    said = capsys.readouterr()
    assert str(out / "index.html") in said.out and said.err == ""
    parsed = Strict((out / "index.html").read_text())
    table = json.loads((out / "table1.json").read_text())
    assert table["baseline"] == "base line" and list(table["rows"]) == ["ours", "base line"]
    assert all(list(row) == [*UNRECORDED, "pass_at_4", "majority_at_4"] for row in table["rows"].values())
    ours, base = (table["rows"][name]["tokens_per_cot"] for name in ("ours", "base line"))
    assert ours["change"] == pytest.approx(100 * (ours["value"] / base["value"] - 1))
    assert ours["low"] < ours["value"] < ours["high"] and ours["change_low"] < ours["change"] < ours["change_high"]
    assert base["change"] is None and base["low"] is not None
    votes = table["rows"]["ours"]["majority_at_4"]
    assert votes["low"] < votes["value"] < votes["high"] and votes["change_low"] is not None
    assert table["changes"]["majority_at_4"] == "points" and table["setting"]["tagger"] == "lexical rules"
    shown = f"{ours['value']:.1f} ({ours['change']:+.0f} %)"
    for text in (said.out, (out / "table1.md").read_text()):
        assert "majority@4 %" in text and "stop words and symbols: lexical rules." in text
        assert shown in text and f"[{ours['low']:.1f}, {ours['high']:.1f}]" in text
    assert f"{ours['change']:+.0f} %" in parsed.text and f"[{ours['low']:.1f}, {ours['high']:.1f}]" in parsed.text
    assert len(parsed.named("article")) == 3 and len(parsed.named("svg")) == 2
    assert parsed.text.count("Figure 2.") == 1 and "Figures 3 to 5." in parsed.text


def test_the_same_runs_give_the_same_bytes(make, tmp_path):
    runs = [make("a", 1), make("b", 5)]
    for name in ("one", "two"):
        assert report(tmp_path / name, *runs, examples=3) == 0
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_run_that_was_not_tested_still_has_its_curves(make, tmp_path, capsys):
    assert report(tmp_path / "out", make("a", tested=False), make("b")) == 0
    assert "a was not tested and has no row in Table 1: run `atmanrl test`" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "out" / "table1.json").read_text())["rows"]) == ["b"]
    assert report(tmp_path / "only", make("c", tested=False)) == 0
    assert names(tmp_path / "only") == {"index.html", "figure2.png", "figure2.svg"}


def test_without_matplotlib(make, tmp_path, monkeypatch, capsys):
    run = make("a")
    assert report(tmp_path / "out", run) == 0
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    capsys.readouterr()
    assert report(tmp_path / "out", run) == 0
    assert "pip install 'atmanrl[figures]'" in capsys.readouterr().err
    # the earlier report's figures would pass for this one's
    assert names(tmp_path / "out") == {name for name in FILES if not name.startswith("figure")}
    assert "pip install" in Strict((tmp_path / "out" / "index.html").read_text()).text


def test_an_earlier_report_is_replaced_and_nothing_else(make, tmp_path, capsys):
    run, out = make("a"), tmp_path / "out"
    assert report(out, run) == 0
    (out / "mine.txt").write_text("kept")
    assert report(out, run) == 0 and (out / "mine.txt").read_text() == "kept"
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "index.html").write_text("<p>somebody's page")
    assert report(strange, run) == 1
    assert "index.html, which `atmanrl report` has not made; choose another folder" in capsys.readouterr().err
    assert [path.name for path in strange.iterdir()] == ["index.html"]
    assert report(strange / "index.html", run) == 1 and "is a file" in capsys.readouterr().err


def test_a_tagger_that_is_not_installed_takes_the_colours_and_no_interval(make, tmp_path, capsys):
    assert report(tmp_path / "out", make("a", setting={"tagger": "no_such_pipeline"})) == 0
    assert "spacy download no_such_pipeline" in capsys.readouterr().err
    row = json.loads((tmp_path / "out" / "table1.json").read_text())["rows"]["a"]
    assert row["numbers_pct"]["low"] is not None
    assert 'class="key' not in (tmp_path / "out" / "index.html").read_text()


def test_no_torch(make, tmp_path):
    make("a", 1), make("b", 5)
    code = (
        "import sys; from atmanrl.__main__ import main; "
        f"status = main(['report', r'{tmp_path / 'a'}', r'{tmp_path / 'b'}', r'--out={tmp_path / 'out'}']); "
        "print([m for m in ('torch', 'lightning', 'transformers') if m in sys.modules], status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


def test_help_loads_neither_spacy_nor_matplotlib():
    code = (
        "import sys; from atmanrl.__main__ import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'spacy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_a_run_that_is_missing_is_refused_before_spacy_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("atmanrl.commands.report._spare_torch", lambda: pytest.fail("spaCy is loaded"))
    assert main(["report", str(tmp_path / "nowhere"), f"--out={tmp_path / 'report'}"]) == 1
    assert "nowhere is no folder; give the folder of a run" in capsys.readouterr().err
