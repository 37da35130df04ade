"""A sweep's table and plot."""

import pytest
import stub_sweeps
from stub_sweeps import run, table

from atmanrl.sweep import results
from atmanrl.sweep.space import load

optuna = pytest.importorskip("optuna")
sweep = pytest.fixture(stub_sweeps.sweep)


def test_the_plot_keeps_the_values_of_the_other_parameters_apart(sweep, tmp_path, monkeypatch):
    """A line for each of them, through the means of trials that share a value."""
    from matplotlib.figure import Figure

    space = load(sweep({"x": {"values": [1, 2]}, "kind": {"values": ["a", "b"]}}))
    rows = [
        {"trial": n, "x": x, "kind": kind, "score": score, "seconds": 1}
        for n, (x, kind, score) in enumerate([(1, "a", 1.0), (1, "a", 3.0), (2, "a", 5.0), (1, "b", 7.0)])
    ]
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), path.write_bytes(b"")))
    assert results.draw(tmp_path / "plot.png", space, rows, {3})
    over_x, over_kind = drawn[0].axes
    assert {line.get_label(): line.get_xydata().tolist() for line in over_x.lines} == {
        "kind = a": [[1, 2], [2, 5]], "kind = b": [[1, 7]],
    }  # fmt: skip
    assert [label.get_text() for label in over_kind.get_xticklabels()] == ["a", "b"]
    assert len(over_x.collections) == 4


def test_trials_that_tie_are_all_best(sweep, capsys):
    path = sweep({"x": {"values": [2, 1, 2.0]}})
    assert run(path) == 0
    said = capsys.readouterr().out
    assert [row["score"] for row in table(path)] == ["2.0", "1.0", "2.0"]
    assert said.count(" *") == 2 and "2 trials tie" in said
    assert all(f"trial_000{number}, x=" in said for number in (0, 2)) and "trial_0001, x=" not in said


def test_one_best_trial_does_not_tie(sweep, capsys):
    assert run(sweep({"x": {"values": [1, 2]}})) == 0
    said = capsys.readouterr().out
    assert said.count(" *") == 1 and "tie" not in said
