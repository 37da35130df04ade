import numpy as np
import pytest

from atmanrl.report import figure2
from atmanrl.report.curves import Curve, read_curves
from atmanrl.report.runs import ReportError

HEADER = "accuracy,cot/mean_length,loss,step"


def written(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    return tmp_path


def test_rows_are_read(tmp_path):
    # a validation's row has no accuracy; an update that was done again counts once
    run = written(tmp_path, f"{HEADER}\n0.5,60.0,0.1,0\n,,0.3,0\n0.6,61.0,0.1,1\n0.7,50.0,0.1,1\n0.25,nan,0.1,2\n")
    curves, notes = read_curves(run)
    assert curves["accuracy"].updates.tolist() == [1, 2, 3] and curves["accuracy"].values.tolist() == [50, 70, 25]
    assert curves["cot/mean_length"].values.tolist() == [60, 50] and notes == []


@pytest.mark.parametrize("rest", ["0.6,61.0", "0.6,61.0,0.1,", "0.6,61.0,0.1,1", "0.6,6\n", "0.6,61.0,0.1,x\n"])
def test_a_half_written_last_row_is_passed_over(tmp_path, rest):
    curves, notes = read_curves(written(tmp_path, f"{HEADER}\n0.5,60.0,0.1,0\n{rest}"))
    assert curves["accuracy"].values.tolist() == [50]
    assert len(notes) == 1 and "metrics.csv is half written" in notes[0]


@pytest.mark.parametrize("row", ["0.6,61.0", "0.6,61.0,0.1,1,7", "much,61.0,0.1,1", "0.6,61.0,0.1,x"])
def test_a_damaged_row_in_the_middle_is_named(tmp_path, row):
    with pytest.raises(ReportError, match="metrics.csv, line 3: .*repair that line"):
        read_curves(written(tmp_path, f"{HEADER}\n0.5,60.0,0.1,0\n{row}\n0.5,60.0,0.1,2\n"))


@pytest.mark.parametrize("text", ["", "\n", HEADER, f"{HEADER}\n", "loss,step\n0.1,0\n"])
def test_nothing_to_draw(tmp_path, text):
    assert read_curves(written(tmp_path, text))[0] == {}
    assert read_curves(tmp_path / "elsewhere") == ({}, [])


@pytest.mark.parametrize("length", [1, 2, 5, 80])
def test_smoothing(length):
    values = np.random.default_rng(length).random(length)
    curve = Curve(np.arange(1, length + 1), values)
    half = curve.window // 2
    assert curve.window % 2 == 1
    expected = [np.mean(values[max(0, n - half) : n + half + 1]) for n in range(length)]
    np.testing.assert_allclose(curve.smoothed(), expected)


def curves():
    at = np.arange(1.0, 41)
    run = {"accuracy": Curve(at, 50 + at), "cot/mean_length": Curve(at, 90 - at)}
    return {"_$hidden$": run, "base": run, "short": {"accuracy": run["accuracy"]}}


def test_what_figure_2_draws():
    figure = figure2.draw(curves(), "base")
    accuracy, length = figure.axes
    assert len(accuracy.lines) == 6 and len(length.lines) == 4  # raw and smooth of each
    assert accuracy.lines[0].get_ydata().tolist() == list(range(51, 91))
    assert {line.get_color() for line in accuracy.lines[2:4]} == {figure2.BASELINE}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [r"_\$hidden\$", "base", "short"]
    assert figure2.draw({"a": {}}) is None


def test_an_inline_figure_stands_alone():
    svg = figure2.inline(figure2.draw(curves(), "base", ["accuracy"]), "q", 'say "<this>"')
    assert svg.startswith(
        '<svg role="img" aria-label="say &#34;&lt;this&gt;&#34;" viewBox="0 0 '
    ) and svg.rstrip().endswith("</svg>")
    assert "http" not in svg and "currentColor" in svg and figure2.INK not in svg


def test_no_global_state(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figure2.save(figure2.draw(curves()), tmp_path / "figure.svg")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("accuracy,step\n0.5,nan\n0.5,1\n", "line 2: step is nan"),
        ("accuracy,step\n0.5,inf\n0.5,1\n", "line 2: step is inf"),
        ("accuracy,step\n0.5," + "1" * 131_073 + "\n0.5,1\n", "cannot be read as CSV"),
    ],
)
def test_what_no_run_writes_into_its_metrics(tmp_path, text, sentence):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ReportError, match=sentence):
        read_curves(tmp_path)
