"""`atmanrl table`: Table 1 of finished runs, without importing torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from atmanrl.io.files import user_path
from atmanrl.io.terminal import print_whole, say_note
from atmanrl.report.runs import columns, comparable, load_tested, title
from atmanrl.report.table1 import render, write_json


def main(args: Sequence[str]) -> int:
    """Print the table and write it as JSON; returns the exit status."""
    parser = argparse.ArgumentParser(prog="atmanrl table", description="Print Table 1 for runs that have been tested.")
    parser.add_argument("runs", nargs="+", type=user_path, help="runs' folders; a row is named by its folder")
    parser.add_argument("--baseline", default="baseline", help="the row that others are compared with")
    parser.add_argument("--json", type=user_path, help="also write the figures to this file")
    given = parser.parse_args(args)

    runs = load_tested(given.runs)
    rows = {run.name: run.row for run in runs if run.row is not None}
    notes = comparable(runs)
    made = render(rows, title(given.baseline), columns=columns(runs))
    if given.json:
        write_json(rows, given.json)
    for note in notes:
        say_note(note)
    print_whole(Console(), made)
    return 0
