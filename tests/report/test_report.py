# ruff: noqa: F401, F811
import html
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from made_runs import make, rollout  # noqa: F401
from strict_html import EVIL, Strict

from atmanrl.__main__ import main
from atmanrl.metrics.columns import UNRECORDED
from atmanrl.report.answers import read_answers
from atmanrl.report.gather import gather
from atmanrl.report.runs import ReportError
from atmanrl.report.write import FILES, write


def report(out, *runs, **options):
    given = {"examples": 1, **options}
    return main(["report", *map(str, runs), f"--out={out}", *(f"--{key}={value}" for key, value in given.items())])


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
    assert table["changes"]["majority_at_4"] == "points" and table["tagger"] == "lexical rules"
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
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', text))
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", text))
    parsed = Strict(text)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = set(ids)
    assert all(link[1:] in named for link in re.findall(r'href="([^"]*)"', text))
    assert {a["content"] for a in parsed.named("meta") if a.get("name") == "viewport"} == {
        "width=device-width, initial-scale=1"
    }
    assert "prefers-color-scheme: dark" in text and ":focus-visible" in text
    assert [button["aria-pressed"] for button in parsed.named("button")] == ["true", "false"]
    assert all(svg["role"] == "img" and svg["aria-label"] and svg["viewbox"] for svg in parsed.named("svg"))


def probe(run, count=4):
    """What `atmanrl probe` would write of the first rollouts."""
    lines = [json.loads(line) for line in (run / "eval" / "test.jsonl").read_text().splitlines()[:count]]
    (run / "probe").mkdir()
    with (run / "probe" / "traces.jsonl").open("w") as file:
        for line in lines:
            pieces = re.findall(r"\s*\S+", line["cot"])
            more = {"pieces": pieces, "saliency": [n / 10 for n in range(len(pieces))], "rewards": {"saliency": 0.5}}
            file.write(json.dumps({**line, **more, "loss_initial": 2.0, "loss_final": 0.1}) + "\n")


def test_problems_with_saliency_come_first(make, tmp_path):
    run, other = make("a"), make("b")
    probe(run)
    found = gather([run, other], examples=5).comparisons
    first, second = found.items[:2]
    assert first.problem == "sums/0" and first.typical and found.scale is not None
    assert [bool(side.tokens) for side in first.sides] == [True, False] and not second.sides[0].tokens
    side = first.sides[0]
    assert "".join(text for text, _, _ in side.tokens) == "".join(text for text, _ in side.words) != ""
    assert side.note == "saliency reward 0.500, answer loss 2.000 → 0.100 nats"
    assert {"number", "symbol", "stop"} <= {name for _, name in side.words}
    assert [(text, name) for text, name in side.words if name == "number"][:2] == [("0", "number"), ("2", "number")]
    # the same answers stand side by side
    assert all(len({s.answer for s in item.sides}) == 1 for item in found.items)


def test_a_run_that_was_not_tested_still_has_its_curves(make, tmp_path, capsys):
    assert report(tmp_path / "out", make("a", tested=False), make("b")) == 0
    assert "a was not tested and has no row in Table 1: run `atmanrl test`" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "out" / "table1.json").read_text())["rows"]) == ["b"]
    assert report(tmp_path / "only", make("c", tested=False)) == 0
    assert names(tmp_path / "only") == {"index.html", "figure2.png", "figure2.svg"}


def test_a_baseline_that_was_not_tested(make):
    found = gather([make("a"), make("b", tested=False)])
    assert found.table1.baseline is None and "shows no changes" in found.notes[-1]


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


def test_folders_that_are_no_runs(make, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match="empty is no run's folder: it has none of config.yaml, metrics.csv"):
        gather([make("a"), tmp_path / "empty"])
    with pytest.raises(ReportError, match="missing is no folder"):
        gather([tmp_path / "missing"])
    with pytest.raises(ReportError, match="nothing to report on .*bare"):
        gather([make("bare", tested=False, updates=0)])
    with pytest.raises(ReportError, match="no run is called 'x y'; there are: a1"):
        gather([make("a1")], baseline="x_y")


def test_two_runs_of_one_name(make, tmp_path, capsys):
    first, second = make("one/run"), make("two/run")
    assert report(tmp_path / "out", first, second) == 1
    assert f"{first} and {second} have the same name" in capsys.readouterr().err
    assert main(["table", str(first), str(second)]) == 1


@pytest.mark.parametrize(("key", "value"), [("tagger", "en_core_web_sm"), ("task", "GSM8K")])
def test_tests_that_cannot_be_compared(make, tmp_path, capsys, key, value):
    runs = make("a"), make("b", setting={key: value})
    for command in (lambda: report(tmp_path / "out", *runs), lambda: main(["table", *map(str, runs), "--baseline=b"])):
        assert command() == 1
        said = capsys.readouterr().err
        assert f"different {key}s" in said and f"{value}: b" in said


def test_tests_that_differ_are_told(make):
    found = gather([make("a", setting={"temperature": 0.7}), make("b", problems=9)])
    assert any("different temperatures (0.7: a; 1.0: b)" in note for note in found.notes)
    assert any("different problems (a: 12, b: 9; 9 in common)" in note for note in found.notes)
    assert {item.problem for item in found.comparisons.items} == {f"sums/{n}" for n in range(9)}


@pytest.mark.parametrize(
    ("marked", "name"), [("</think>", "</think>"), ({"class_path": "BoxedSplitter"}, "BoxedSplitter")]
)
def test_what_marked_the_answers_is_told(make, tmp_path, marked, name):
    runs = make("a"), make("b", setting={"delimiter": marked}), make("c", setting={"delimiter": marked})
    assert any(f"different delimiters (#####: a; {name}: b)" in note for note in gather(runs[:2]).notes)
    for which, told in ((runs[:1], False), (runs[1:], True)):
        assert report(tmp_path / "out", *which) == 0
        page = (tmp_path / "out/index.html").read_text()
        assert ("answers marked by" in page) == (f"answers marked by {html.escape(name)}" in page) == told


def test_rollouts_of_another_test_give_no_intervals(make):
    run = make("a")
    figures = json.loads((run / "eval" / "test.json").read_text())
    (run / "eval" / "test.json").write_text(json.dumps({**figures, "pass_at_1": figures["pass_at_1"] + 0.05}))
    found = gather([run])
    assert "test.jsonl is not of the test in test.json (pass_at_1 differ)" in found.notes[0]
    assert not found.table1.has_intervals and not found.comparisons.items


def test_no_rollouts_were_kept(make):
    run = make("a")
    lines = (run / "eval" / "test.jsonl").read_text().splitlines(keepends=True)
    for rank, part in enumerate((lines[:20], lines[18:])):  # two processes, one rollout written by both
        (run / "eval" / f"test.rank{rank}.jsonl").write_text("".join(part))
    (run / "eval" / "test.jsonl").unlink()
    assert gather([run]).table1.has_intervals
    for rank in (0, 1):
        (run / "eval" / f"test.rank{rank}.jsonl").unlink()
    found = gather([run])
    assert "kept no rollouts of its test" in found.notes[0] and not found.table1.has_intervals


@pytest.mark.parametrize(("line", "message"), [("{", "not JSON"), ("[]", "not list"), ('{"cot": ""}', "'problem_id'")])
def test_damaged_rollouts_are_named(make, line, message):
    run = make("a")
    with (run / "eval" / "test.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ReportError, match=f"test.jsonl, line 49: .*{message}"):
        gather([run])


def test_a_tagger_that_is_not_installed(make, tmp_path, capsys):
    assert report(tmp_path / "out", make("a", setting={"tagger": "no_such_pipeline"})) == 0
    assert "spacy download no_such_pipeline" in capsys.readouterr().err
    row = json.loads((tmp_path / "out" / "table1.json").read_text())["rows"]["a"]
    assert row["numbers_pct"]["low"] is None and row["pass_at_1"]["low"] is not None


def test_notes_are_on_the_page(make, tmp_path):
    found = gather([make("a")])
    found.notes.append(EVIL)
    write(found, tmp_path / "out", "T")
    assert EVIL in Strict((tmp_path / "out" / "index.html").read_text()).text


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


def test_examples_are_the_same_for_everyone(make):
    folders = [make("a"), make("b", 5)]
    first, again = (gather(folders, examples=4).comparisons.items for _ in range(2))
    assert [i.problem for i in first] == [i.problem for i in again]
    assert len(first) == 4 and len(gather(folders, examples=0).comparisons.items) == 0
    assert np.all([len(item.sides) == 2 for item in first])


def test_typical_problems_are_right_everywhere_and_of_mean_length(make):
    """Against a search over all problems and all their right answers; lengths are 8 + 4 (filler + p % 3 + s) tokens."""
    runs = [make("a"), make("b", 5)]
    found = gather(runs, examples=5).comparisons.items
    assert [item.typical for item in found] == [True] * 3 + [False] * 2
    answers = [read_answers(run) for run in runs]
    means = [np.mean([a.length for a in of]) for of in answers]

    def distance(problem):
        ours = [[a for a in of if a.correct and a.problem == problem] for of in answers]
        return max(min(abs(np.log(a.length / mean)) for a in of) for of, mean in zip(ours, means, strict=True))

    expected = sorted({a.problem for a in answers[0]}, key=lambda p: (distance(p), p))
    assert [item.problem for item in found[:3]] == expected[:3]
    assert all(side.correct for item in found[:3] for side in item.sides)
    assert len({item.problem for item in found}) == 5


def test_where_no_problem_is_right_everywhere_all_are_drawn(make, tmp_path):
    wrong = make("b", rollouts=[rollout(p, s, 1, False) for p in range(5) for s in range(4)])
    found = gather([make("a"), wrong])
    assert len(found.comparisons.items) == 5 and not any(item.typical for item in found.comparisons.items)
    written = {path.name for path in write(found, tmp_path / "out", "T")}
    assert "figure2.png" in written and "figure3.png" not in written
    assert "Problems are drawn at random (seed 0)" in (tmp_path / "out" / "index.html").read_text()


def test_two_samples_a_problem(make, tmp_path):
    """Their figures are pass@2 and majority@2; beside a test of four they stand in columns of their own."""
    two = make("two", rollouts=[rollout(p, s, 2, s == 0 and p % 3 > 0) for p in range(12) for s in range(2)])
    path = two / "eval" / "test.json"
    figures = json.loads(path.read_text())
    del figures["pass_at_4"]
    path.write_text(json.dumps({**figures, "pass_at_2": 8 / 12, "majority_at_2": 0.6}))
    assert main(["table", str(two), str(make("four")), "--baseline=four"]) == 0
    table = gather([two, tmp_path / "four"]).table1
    assert table.titles[4:] == ["pass@1 %", "pass@2 %", "pass@4 %", "majority@2 %", "majority@4 %"]
    row = table.rows["two"]
    assert row["pass_at_2"].interval[0] < 66.6 < row["pass_at_2"].interval[1]
    assert row["pass_at_4"].shown == "–" and row["pass_at_4"].change is None
