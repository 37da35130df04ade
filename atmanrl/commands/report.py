"""`atmanrl table` and `atmanrl report`: Table 1 and reports of finished runs, without importing torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console

from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.io.terminal import print_whole, say_note


def main(args: Sequence[str]) -> int:
    """Write a report and print its table; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="atmanrl report",
        description="Write Table 1 (Markdown, LaTeX, JSON), Figure 2 (PNG, SVG) and one page with all of it, and the "
        "same problems answered by all runs side by side. Saliency is shown where RUN/probe/traces.jsonl knows it "
        "(`atmanrl probe --model RUN/policy --traces RUN/eval/test.jsonl --out RUN/probe`).",
    )
    parser.add_argument("runs", nargs="+", type=user_path, help="runs' folders; a row is named by its folder")
    parser.add_argument(
        "--out", type=user_path, required=True, help="folder for the report; an earlier report is replaced"
    )
    parser.add_argument("--baseline", help="name of the run that others are compared with (default: the last one)")
    parser.add_argument("--examples", type=int, default=12, help="problems shown side by side (default: 12)")
    parser.add_argument("--title", default="AtManRL: a report", help="of the page")
    given = parser.parse_args(args)
    if given.examples < 0:
        parser.error("--examples must be 0 or more")

    from atmanrl.report.gather import gather
    from atmanrl.report.table1 import in_terminal
    from atmanrl.report.table1_formats import caption
    from atmanrl.report.words import spare_torch
    from atmanrl.report.write import may_write, write

    may_write(given.out)  # before the work, not after
    spare_torch()
    found = gather(given.runs, given.baseline, given.examples)
    written = write(found, given.out, given.title)
    console = Console()
    if found.table1:
        print_whole(console, in_terminal(found.table1))
        console.print(escape.terminal(caption(found.table1)), style="dim", markup=False, highlight=False)
    for note in found.notes:
        say_note(note)
    others = ", ".join(path.name for path in written[1:])
    told = f"{written[0]} written" + (f", and beside it {others}." if others else ".")
    console.print(escape.terminal(told), markup=False, highlight=False, soft_wrap=True)
    return 0
