"""`atmanrl table`: Table 1 of finished runs, without importing torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.io.files import user_path
from atmanrl.io.terminal import print_whole, say_note
from atmanrl.report.runs import BASELINE_RULE, baseline_of, columns, comparable, load_tested
from atmanrl.report.table1 import build, in_terminal, write_json


def main(args: Sequence[str]) -> int:
    """Print the table and write it as JSON; return the exit status."""
    parser = OptionParser(prog="atmanrl table", description="Print Table 1 for runs that have been tested.")
    add_runs(parser)
    parser.add_argument("--json", type=user_path, help="also write the values to this file")
    options = parser.parse_args(args)

    runs = load_tested(options.runs)
    values = {run.name: run.values for run in runs if run.values is not None}
    notes = comparable(runs)
    table1 = build(values, baseline_of(runs, options.baseline), columns(runs))
    if options.json:
        write_json(values, options.json)
    for note in notes:
        say_note(note)
    print_whole(Console(), in_terminal(table1))
    return 0


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the runs and their baseline to the options of a command."""
    parser.add_argument("runs", nargs="+", type=user_path, help="runs' folders; a row is named by its folder")
    parser.add_argument("--baseline", metavar="NAME", help=BASELINE_RULE)
