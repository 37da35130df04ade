"""What Table 1 says, as sentences drawn from its intervals: what changed, and what the tests cannot tell apart."""

from __future__ import annotations

import math

from atmanrl.io import escape
from atmanrl.report.table1 import Cell, Table1

LENGTH = "tokens_per_cot"
"""The key of the reasoning's length."""


def conclusions(table1: Table1) -> list[str]:
    """Return a sentence for each row that is compared with the baseline: of its length, and of all that is in points.

    A change counts where its 95 % interval leaves out 0. Nothing is concluded without intervals.

    Example:
        "atmanrl, compared with baseline: tokens / CoT -47 % [-49, -45], pass@4 % -2.8 pts [-5.4, -0.2]. Not told apart by
        these tests: pass@1 % -0.5 pts [-2.9, +1.9]."
    """
    sentences = []
    for method, row in table1.rows.items():
        cells = {
            key: cell for key, cell in row.items() if cell.change_interval and (cell.points or key == LENGTH)
        }  # fmt: skip
        if method == table1.baseline or not cells:
            continue
        changed = [_said(table1, key, cell) for key, cell in cells.items() if _leaves_out_zero(cell)]
        others = [_said(table1, key, cell) for key, cell in cells.items() if not _leaves_out_zero(cell)]
        if not changed:
            sentences.append(f"{method} and {table1.baseline} are not told apart by these tests: {', '.join(others)}.")
            continue
        sentence = f"{method}, compared with {table1.baseline}: {', '.join(changed)}."
        sentences.append(f"{sentence} Not told apart by these tests: {', '.join(others)}." if others else sentence)
    return sentences


def _leaves_out_zero(cell: Cell) -> bool:
    low, high = cell.change_interval or (-math.inf, math.inf)
    return low > 0 or high < 0


def _said(table1: Table1, key: str, cell: Cell) -> str:
    return f"{escape.line(table1.columns[key].title)} {cell.shown_change} {cell.shown_change_interval}"
