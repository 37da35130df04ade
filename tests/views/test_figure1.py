import numpy as np
import pytest

from atmanrl.errors import UserError
from atmanrl.views import figure1

ROWS = ["$3", " +", " $4", "\n", " #####", " 7"]
SALIENCY = [0.2, -0.1, 0.3, 0.0]


def mask():
    values = np.full((6, 4), np.nan)
    values[np.tril_indices(6, m=4)] = np.linspace(-0.5, -0.1, 18)
    return values


def draw(**options):
    given = {"mask": mask(), "saliency": SALIENCY, "losses": [(0, 2.0), (3, 1.0), (9, 0.5)], "rows": ROWS}
    return figure1.draw(**{**given, **options}, init_value=-0.4)


def test_what_is_drawn():
    figure = draw(title="costs $3 and $4")
    losses, before, after, _, bars = figure.axes
    assert losses.lines[0].get_xydata().tolist() == [[0, 2], [3, 1], [9, 0.5]]
    np.testing.assert_array_equal(after.images[0].get_array().filled(np.nan), mask())
    np.testing.assert_array_equal(before.images[0].get_array().filled(np.nan), np.where(np.isnan(mask()), np.nan, -0.4))
    assert before.images[0].norm is after.images[0].norm and after.images[0].norm.vcenter == -0.4
    assert [patch.get_height() for patch in bars.patches] == SALIENCY
    assert [text.get_text() for text in bars.get_xticklabels()] == [r"\$3", "+", r"\$4", "⏎"]
    assert [text.get_text() for text in before.get_yticklabels()][-2:] == ["#####", "7"]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_it_is_written(tmp_path, ending):
    path = tmp_path / "new" / f"figure.{ending}"
    figure1.save(draw(title="costs $3 and $4"), path)
    assert path.stat().st_size > 5000


def test_no_global_state(tmp_path):
    import matplotlib
    import matplotlib.pyplot as plt

    before = plt.get_fignums(), dict(matplotlib.rcParams)
    figure1.save(draw(), tmp_path / "figure.png")
    assert (plt.get_fignums(), dict(matplotlib.rcParams)) == before


def test_many_tokens_are_numbered(tmp_path):
    many = figure1.MOST_LABELS + 36
    figure = draw(
        mask=np.tril(np.full((many, many), -0.4)), saliency=[0.1] * many, rows=[f"token{n}" for n in range(many)]
    )
    figure1.save(figure, tmp_path / "figure.png")
    assert not any("token" in text.get_text() for axis in figure.axes for text in axis.get_xticklabels())


def test_a_mask_that_did_not_move(tmp_path):
    figure1.save(draw(mask=np.where(np.isnan(mask()), np.nan, -0.4)), tmp_path / "figure.png")


@pytest.mark.parametrize("wrong", [{"rows": ROWS[:5]}, {"saliency": [0.1]}, {"losses": []}, {"mask": [0.1, 0.2]}])
def test_lengths_that_do_not_fit(wrong):
    with pytest.raises(UserError, match="figure 1 needs"):
        draw(**wrong)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'atmanrl\[figures\]'"):
        draw()
