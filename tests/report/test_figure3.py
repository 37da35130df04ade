import random

import pytest
from rich.cells import cell_len

from atmanrl.errors import UserError
from atmanrl.report import figure2, figure3
from atmanrl.report.comparisons import Comparison, Side

WORDS = [("So", "stop"), (" ", "other"), ("12", "number"), (" ", "other"), ("+", "symbol"), (" $x$ apples", "other")]
TOKENS = [("So 1", 0.0, "0.000"), ("2 +", 1.0, "0.300"), (" $x$ apples", 0.5, "0.150")]


def item(*sides):
    return Comparison("p/1", "What is <12> & $x$?", "7", list(sides), True)


def side(name="ours", words=WORDS, tokens=TOKENS, **options):
    return Side(**{"name": name, "answer": "7", "correct": True, "length": 9, "words": words, "tokens": tokens, "note": ""}
                | options)  # fmt: skip


def texts(figure):
    return [text.get_text().replace("\\$", "$") for text in figure.axes[0].texts]


def grounds(figure, colour):
    return [patch for patch in figure.axes[0].patches if patch.get_facecolor() == colour]


def test_words_stand_on_the_colour_of_their_class():
    from matplotlib.colors import to_rgba

    figure = figure3.draw(item(side(tokens=[]), side("base", tokens=[])))
    for kind, count in (("number", 2), ("symbol", 2), ("stop", 2)):
        # one in each answer, one in the legend
        assert len(grounds(figure, to_rgba(figure3.CLASSES[kind][0]))) == count + 1
    assert {"What is <12> & $x$?", "gold answer: 7", "ours: right, answer 7, 9 tokens", "stop word"} <= set(
        texts(figure)
    )
    assert not any("saliency" in text for text in texts(figure))


def test_saliency_has_a_second_row_where_it_is_known():
    figure = figure3.draw(item(side(), side("base", tokens=[], answer=None, correct=False)), 0.3)
    legend = {"saliency -0.300", "0.300 (no colour is 0; 99 % of the tokens lie between the ends)"}
    assert {*legend, "saliency not known", "base: no answer, 9 tokens"} <= set(texts(figure))
    full = (*(part / 255 for part in figure3.ABOVE), 0.72)
    assert len(grounds(figure, full)) == 2  # the token "2 +" and the legend's end


def test_lines_are_broken_at_spaces_whatever_the_colours():
    """A word is broken only where it is wider than a line; nothing but the spaces at the breaks is lost."""
    random.seed(0)
    for cells in (7, 12, 31):
        for _ in range(50):
            text = " ".join(random.choice(["a", "42", "pencils", "日本", "$x_1$"]) for _ in range(30))
            cuts = sorted(random.sample(range(1, len(text)), 12))
            parts = [
                (text[a:b], place, "k") for place, (a, b) in enumerate(zip([0, *cuts], [*cuts, None], strict=True))
            ]
            lines = figure3._wrapped(parts, cells)
            shown = ["".join(run.text for run in line) for line in lines]
            assert " ".join(shown) == text
            assert all(cell_len(line) <= cells for line in shown)
            assert all(
                run.column == cell_len(line[: line.index(run.text)])
                for line, (run, *_) in zip(shown, lines, strict=True)
            )
    (lines,) = [figure3._wrapped([("x" * 20, None, "k")], 7)]
    assert ["".join(run.text for run in line) for line in lines] == ["x" * 7, "x" * 7, "x" * 6]


def test_line_ends_and_very_long_texts():
    lines = figure3._wrapped([("a\nb\tc", None, "k"), ("\n\nd", 1, "k")], 20)
    assert ["".join(run.text for run in line) for line in lines] == ["a", "b c", "", "d"]
    assert len(figure3._wrapped([("word " * 2000, None, "k")], 20)) == figure3.MOST_LINES


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_same_bytes_each_time(tmp_path, ending):
    for name in ("one", "two"):
        figure2.save(figure3.draw(item(side(), side("base")), 0.3), tmp_path / f"{name}.{ending}", "path")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'atmanrl\[figures\]'"):
        figure3.draw(item(side()))
