"""How tables show a metric's values."""

import pytest

from atmanrl.metrics.columns import Column, merged, unrecorded


def test_a_column_survives_a_file():
    column = Column("answers", False, "share", "x")
    assert Column.from_json({**column.to_json(), "of a later version": 1}) == column
    assert (column.direction, column.factor, column.shown_unit) == ("lower is better", 100, "%")


@pytest.mark.parametrize(
    "value",
    [{}, [], None, {"title": ""}, {"title": 3}, {"title": "x", "kind": "euro"}, {"title": "x", "higher_is_better": "up"},
     {"title": "x", "kind": ["share"]}, {"title": "x", "unit": None}],
)  # fmt: skip
def test_what_is_no_column(value):
    with pytest.raises(ValueError):
        Column.from_json(value)


def test_an_evaluation_of_an_earlier_version_has_the_columns_of_its_time():
    columns = unrecorded(["majority_at_8", "pass_at_16", "pass_at_4", "pass_at_1", "finished", "rewards/x/mean"])
    assert [column.title for column in columns.values()] == [
        "tokens / CoT", "numbers %", "stop words %", "symbols %", "pass@1 %", "pass@4 %", "pass@16 %", "majority@8 %",
    ]  # fmt: skip


def test_columns_of_several_evaluations_stand_in_one_order():
    own = {"mine": Column("mine")}
    both = merged([unrecorded(["pass_at_8", "majority_at_8"]) | own, unrecorded(["pass_at_4", "majority_at_4"])])
    assert list(both)[5:] == ["pass_at_4", "pass_at_8", "majority_at_4", "majority_at_8", "mine"]
    with pytest.raises(ValueError, match="mine is a value of kind 'count' in one and of 'share' in another"):
        merged([own, {"mine": Column("mine", kind="share")}])
