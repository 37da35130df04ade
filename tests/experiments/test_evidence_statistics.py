"""The bootstrap of the evidence, against loops, and the summary of results that were made by hand."""

import gzip
import json
import shutil

import numpy as np
import pytest

from atmanrl.report.intervals import interval
from experiments.evidence import figure
from experiments.evidence.arms import ARMS
from experiments.evidence.bootstrap import Ratio, draws, holm, p_value
from experiments.evidence.compare import difference
from experiments.evidence.frontier import choice
from experiments.evidence.results import TABLE1
from experiments.evidence.summarise import summary
from experiments.evidence.tables import markdown


def ratio(random, seeds=3, problems=7):
    return Ratio(random.normal(size=(seeds, problems)), random.uniform(0.5, 2, size=(seeds, problems)))


def test_a_drawn_value_is_the_sum_over_drawn_seeds_and_problems():
    random = np.random.default_rng(1)
    made = ratio(random)
    seeds, problems = draws(3, 7, count=20)
    assert (seeds.sum(1) == 3).all() and (problems.sum(1) == 7).all()
    for value, m, w in zip(made.drawn(seeds, problems), seeds, problems, strict=True):
        above = sum(m[s] * w[p] * made.above[s, p] for s in range(3) for p in range(7))
        below = sum(m[s] * w[p] * made.below[s, p] for s in range(3) for p in range(7))
        assert value == pytest.approx(above / below)
    assert made.value() == pytest.approx(made.above.sum() / made.below.sum())


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    random, covered = np.random.default_rng(2), 0
    for _ in range(200):
        values = random.normal(size=(30, 1)) + random.normal(size=(30, 40))
        low, high = interval(Ratio(values, np.ones_like(values)).drawn(*draws(30, 40, count=400)))
        covered += low <= 0 <= high
    assert 175 <= covered <= 200


def test_the_difference_of_a_value_and_itself_is_nothing_at_all():
    made = ratio(np.random.default_rng(3))
    same = difference("cir", made, made)
    assert same["difference"] == same["low"] == same["high"] == 0 and same["p"] == 1


def test_arms_of_unequal_seeds_are_compared_on_those_of_both():
    random = np.random.default_rng(4)
    five, three = ratio(random, seeds=5), ratio(random, seeds=3)
    compared = difference("cir", five, three)
    assert compared["seeds"] == 3
    assert compared["difference"] == pytest.approx(five.first(3).value() - three.value())


def test_p_values_are_two_sided_and_corrected_by_holm():
    assert p_value(np.array([1.0, 2.0, 3.0, -1.0])) == pytest.approx(0.5)
    assert p_value(np.ones(1000)) == pytest.approx(1 / 1000)
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert corrected == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


@pytest.fixture
def results(tmp_path):
    """Arms a, b and d: b's reasoning is half as long, and its causal importance higher than d's by 0.2."""
    random = np.random.default_rng(5)
    head = "problem_id,sample,correct,cot_tokens,words,numbers,stop_words,symbols"
    for arm, length, importance in (("a", 60, 0.3), ("b", 30, 0.5), ("d", 30, 0.3)):
        for seed in range(5):
            folder = tmp_path / f"{arm}-{seed}"
            folder.mkdir()
            lines = [head]
            lines += [f"p/{p},{s},{int((p + s) % 4 > 0)},{length},40,10,5,8" for p in range(20) for s in range(4)]
            (folder / "counts.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
            rows = [
                {"problem_id": f"p/{p}", "sample": 0, "cir": None if p == 3 else importance + random.normal() / 100}
                for p in range(20)
            ]
            (folder / "measures.json.gz").write_bytes(gzip.compress(json.dumps({"rows": rows}).encode()))
            steps = {"fit": {"seconds": 100.0 + seed, "command": "python -m atmanrl fit"}}
            (folder / "record.json").write_text(json.dumps({"arm": arm, "seed": seed, "steps": steps}))
    return tmp_path


def tuned(key, tokens, passed):
    return {"key": key, "tuning": {"tokens_per_cot": tokens, "pass_at_4": passed}}


def test_the_shortest_setting_that_keeps_pass_at_4_is_chosen():
    points = [tuned("b025", 50.0, 0.93), tuned("b050", 40.0, 0.92), tuned("b", 34.0, 0.909)]
    assert choice(points, 0.935) == "b050"
    assert choice(points, 0.97) is None


def test_the_weights_are_tuned_on_their_own_problems_and_shown_on_the_test_problems(results):
    counts = {key: gzip.decompress((results / f"{key}-0/counts.csv.gz").read_bytes()).decode() for key in ("a", "b")}
    for key in ("b025", "b050", "b", "a"):
        for seed in range(2):
            folder = results / f"{key}-{seed}"
            folder.mkdir(exist_ok=True)
            tuning, test = counts["a" if key in ("a", "b025") else "b"], counts["b"]
            (folder / "tuning_counts.csv.gz").write_bytes(gzip.compress(tuning.replace("p/", "t/").encode()))
            if key != "a":
                (folder / "counts.csv.gz").write_bytes(gzip.compress(test.encode()))
    frontier = summary(results)["frontier"]
    assert [(point["arm"], point["multiple"]) for point in frontier["points"]] == [
        ("b", 0.25), ("b", 0.5), ("b", 1.0), ("d", 1.0)
    ]  # fmt: skip
    assert (
        frontier["points"][0]["tuning"]["tokens_per_cot"] == 60
        and frontier["points"][1]["tuning"]["tokens_per_cot"] == 30
    )
    assert frontier["points"][0]["values"]["tokens_per_cot"]["value"] == 30
    assert frontier["chosen"] == {"b": "b050"}


def test_the_length_of_training_is_chosen_by_the_log_of_the_held_out_problems(results):
    for key, passes in (("a", (0.90, 0.92)), ("b", (0.9199999, 0.91)), ("d", (0.91, 0.90))):
        for seed in range(2):
            rows = [f"{25 * n - 1},,{60 - 10 * n},{value}" for n, value in enumerate(passes, 1)]
            text = "\n".join(["step,loss,val/tokens_per_cot,val/pass_at_4", "0,0.5,,", *rows])
            (results / f"{key}-{seed}/metrics.csv.gz").write_bytes(gzip.compress(text.encode()))
    shutil.copytree(results / "b-0", results / "b75-0")
    training = summary(results)["training"]
    assert training["points"][1] == {"arm": "a", "update": 50, "tokens_per_cot": [40.0] * 2, "pass_at_4": [0.92] * 2}
    assert training["chosen"] == {"b": 25, "d": None}
    assert training["tested"]["b75"]["against_a"]["tokens_per_cot"]["difference"] == pytest.approx(-50)
    assert "Chosen: b: 25; d: none." in markdown(summary(results), TABLE1, ("cir",))


def test_the_summary_of_results(results):
    made = summary(results)
    assert made["cot_change_pct"] == pytest.approx(-50) and made["numbers_change_pct"] == pytest.approx(0)
    assert made["seeds"] == 5 and made["pass_at_1"] == pytest.approx(0.75) and made["pass_at_4"] == 1
    assert made["pass_at_4_diff_lower"] == 0
    primary = made["primary"]["cir"]
    assert primary["difference"] == pytest.approx(0.2, abs=0.01) and primary["p_holm"] < 0.01
    assert made["seconds"]["b"]["fit"] == 102
    text = markdown(made, ("tokens_per_cot", "pass_at_4"), ("cir",))
    assert "| b | + saliency (restored) | 5 | 30.0 [30.0, 30.0] | 100.0 [100.0, 100.0] |" in text


def test_the_picture_has_a_colour_for_every_arm_and_a_panel_for_everything_that_there_is(
    results, tmp_path, monkeypatch
):
    assert len(set(figure.COLOURS.values())) == len(ARMS)
    (tmp_path / "summary.json").write_text(json.dumps(summary(results)))
    monkeypatch.setattr("sys.argv", ["figure", str(tmp_path / "summary.json"), str(tmp_path / "evidence.svg")])
    figure.main()
    drawn = (tmp_path / "evidence.svg").read_text()
    assert drawn.count('id="axes_') == 2 and "#ff7f0e" in drawn
