"""The page of a report, as a browser parses it."""

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


def test_every_text_is_escaped(make, tmp_path):
    lines = [rollout(p, s, p, True, prompt=EVIL, cot=EVIL + " 3 + 4", answer=EVIL, gold=EVIL, problem_id=f"{EVIL}{p}")
             for p in range(3) for s in range(4)]  # fmt: skip
    evil = make('<script>alert(1)<&script>$x^2$_{\\y}"', rollouts=lines)
    plain = make("plain", rollouts=lines)
    clean = make("clean")
    assert report(tmp_path / "clean_out", clean) == 0
    assert report(tmp_path / "out", evil, plain, title=EVIL, examples=2) == 0
    text = (tmp_path / "out" / "index.html").read_text()
    parsed = Strict(text)
    expected = Strict((tmp_path / "clean_out" / "index.html").read_text())
    assert parsed.named("script") == expected.named("script") == []  # no saliency, so no button and no script
    assert "<script" not in text and parsed.text.count(EVIL) > 10
    assert all(not key.startswith("on") for _, attributes in parsed.tags for key in attributes)
    assert "&lt;script&gt;alert(1)&lt;&amp;script&gt;$x^2$" in (tmp_path / "out" / "figure2.svg").read_text()


def test_the_page_loads_nothing_and_can_be_used_by_keyboard(make, tmp_path):
    run = make("a")
    probe(run)
    assert report(tmp_path / "out", run, make("b")) == 0
    text = (tmp_path / "out" / "index.html").read_text()
    assert not re.search(r"https?:|//[a-z]|@import|src=|<link", text)
    links = re.findall(r'href="([^"]*)"', text)
    assert all(link.startswith("#") or (link in FILES and (tmp_path / "out" / link).is_file()) for link in links)
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", text))
    parsed = Strict(text)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = set(ids)
    assert all(link[1:] in named for link in links if link.startswith("#"))
    assert {a["content"] for a in parsed.named("meta") if a.get("name") == "viewport"} == {
        "width=device-width, initial-scale=1"
    }
    assert "prefers-color-scheme: dark" in text and ":focus-visible" in text
    assert [button["aria-pressed"] for button in parsed.named("button")] == ["true", "false"]
    assert all(svg["role"] == "img" and svg["aria-label"] and svg["viewbox"] for svg in parsed.named("svg"))


def test_notes_are_on_the_page(make, tmp_path):
    gathered = gather([make("a")])
    gathered.notes.append(EVIL)
    write(gathered, tmp_path / "out", "T")
    assert EVIL in Strict((tmp_path / "out" / "index.html").read_text()).text


@pytest.mark.parametrize(
    ("marked", "name"), [("</think>", "</think>"), ({"class_path": "BoxedSplitter"}, "BoxedSplitter")]
)
def test_what_marked_the_answers_is_told(make, tmp_path, marked, name):
    runs = [make("a", updates=0), *(make(name, updates=0, setting={"delimiter": marked}) for name in "bc")]
    assert any(f"different delimiters (#####: a; {name}: b)" in note for note in gather(runs[:2]).notes)
    for which, said in ((runs[:1], False), (runs[1:], True)):
        assert report(tmp_path / "out", *which) == 0
        page = (tmp_path / "out/index.html").read_text()
        assert ("answers marked by" in page) == (f"answers marked by {html.escape(name)}" in page) == said
