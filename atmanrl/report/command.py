"""`atmanrl table`: Table 1 for finished runs, without importing torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from atmanrl.report.table1 import ReportError, load_row, render, write_json


def main(args: Sequence[str]) -> int:
    """Print the table and write it as JSON; returns the exit status."""
    parser = argparse.ArgumentParser(prog="atmanrl table", description="Print Table 1 for runs that have been tested.")
    parser.add_argument("runs", nargs="+", type=Path, help="runs' folders; a row is named by its folder")
    parser.add_argument("--baseline", default="baseline", help="the row that others are compared with")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args(args)
    try:
        rows = {run.name.replace("_", " "): load_row(run) for run in given.runs}
        if len(rows) < len(given.runs):
            raise ReportError("two of the runs' folders have the same name; rename one of them.")
        table = render(rows, given.baseline)
        if given.json:
            write_json(rows, given.json)
    except ReportError as error:
        print(f"atmanrl: error: {error}", file=sys.stderr)
        return 1
    Console().print(table)
    return 0
