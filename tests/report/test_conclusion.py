"""The page opens with what the intervals say, with the settings, and with links."""

# ruff: noqa: F401, F811
import yaml
from run_folders import make, probe, report
from strict_html import Strict

from atmanrl.metrics.columns import Column
from atmanrl.report.conclusion import conclusions
from atmanrl.report.run_settings import settings_sentences
from atmanrl.report.runs import load
from atmanrl.report.table1 import Cell, Table1

COLUMNS = {
    "tokens_per_cot": Column("tokens / CoT"), "numbers_pct": Column("numbers %", kind="per cent"),
    "pass_at_1": Column("pass@1 %", True, "points"), "pass_at_4": Column("pass@4 %", True, "points"),
}  # fmt: skip


def row(*changes):
    return {
        key: Cell(50.0, (49.0, 51.0), change, interval, COLUMNS[key].in_points)
        for key, (change, interval) in zip(COLUMNS, changes, strict=True)
    }


def test_a_change_counts_where_its_interval_leaves_out_zero():
    changes = [(-47.1, (-49.0, -45.0)), (90.0, (80.0, 99.0)), (-0.5, (-2.9, 1.9)), (-2.8, (-5.4, -0.2))]
    table1 = Table1(COLUMNS, {"atmanrl": row(*changes), "baseline": row(*[(None, None)] * 4)}, "baseline")
    assert conclusions(table1) == [
        "atmanrl, compared with baseline: tokens / CoT -47 % [-49, -45], pass@4 % -2.8 pts [-5.4, -0.2]. Not told apart by "
        "these tests: pass@1 % -0.5 pts [-2.9, +1.9]."
    ]
    same = [(0.5, (-1.0, 2.0))] * 4
    (sentence,) = conclusions(Table1(COLUMNS, {"a": row(*same), "b": row(*[(None, None)] * 4)}, "b"))
    assert sentence.startswith("a and b are not told apart by these tests: tokens / CoT")
    without = [(1.0, None)] * 4
    assert conclusions(Table1(COLUMNS, {"a": row(*without), "b": row(*[(None, None)] * 4)}, "b")) == []


def config(folder, rewards, **data):
    model = {"class_path": "GRPOModule", "init_args": {"policy": {"path": "p"}, "rewards": rewards}}
    trainer = {"max_steps": 9, "default_root_dir": str(folder)}
    written = {"trainer": trainer, "model": model, "data": {"class_path": "RolloutDataModule", "init_args": data}}
    (folder / "config.yaml").write_text(yaml.safe_dump(written))


def test_settings_that_runs_share_and_those_in_which_they_differ(make):
    one, two, bare = make("one"), make("two"), make("bare")
    outcome = {"class_path": "OutcomeReward"}
    saliency = {"class_path": "SaliencyReward", "init_args": {"weight": 10.0}}
    config(one, {"outcome": outcome, "saliency": saliency}, group_size=8, seed=1)
    config(two, {"outcome": outcome}, group_size=8, seed=2)
    assert settings_sentences(load([one, two, bare])) == [
        "Settings of one, two: policy p, updates 9, completions of each 8.",
        "They differ in data.seed, model.rewards.saliency.",
    ]
    assert settings_sentences(load([bare])) == []


def test_the_page_opens_with_them(make, tmp_path):
    one, two = make("one", filler=1), make("baseline", filler=6)
    config(one, {"outcome": {"class_path": "OutcomeReward"}}, group_size=8)
    probe(one)
    assert report(tmp_path / "out", one, two) == 0
    text = Strict((tmp_path / "out" / "index.html").read_text()).text
    assert (
        text.index("one, compared with baseline: tokens / CoT -")
        < text.index("Settings of one")
        < text.index("Table 1.")
    )
