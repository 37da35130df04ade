"""`atmanrl report`: Table 1, figures and a page of finished runs, without importing torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from atmanrl.commands.options.argparser import OptionParser
from atmanrl.commands.table import add_runs
from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.io.terminal import print_whole, say_note


def main(args: Sequence[str]) -> int:
    """Write a report and print its table; return the exit status."""
    parser = OptionParser(
        prog="atmanrl report",
        description="Write Table 1 (Markdown, LaTeX, JSON), Figure 2 (PNG, SVG) and one page with all of it, and the "
        "same problems answered by all runs side by side. Saliency is shown where RUN/probe/traces.jsonl knows it "
        "(`atmanrl probe --model RUN/policy --traces RUN/eval/test.jsonl --out RUN/probe`).",
    )
    add_runs(parser)
    parser.add_argument(
        "--out", type=user_path, required=True, help="folder for the report; an earlier report is replaced"
    )
    parser.add_argument("--examples", type=int, default=12, help="problems shown side by side (default: 12)")
    parser.add_argument("--title", default="AtManRL: a report", help="of the page")
    options = parser.parse_args(args)
    if options.examples < 0:
        parser.error("--examples must be 0 or more")

    from atmanrl.report.gather import gather
    from atmanrl.report.runs import baseline_of, load
    from atmanrl.report.table1 import in_terminal
    from atmanrl.report.table1_formats import caption
    from atmanrl.report.write import may_write, write

    may_write(options.out)  # before the work, not after
    baseline_of(load(options.runs), options.baseline)  # nor after spaCy is loaded, which takes a second
    _spare_torch()
    report = gather(options.runs, options.baseline, options.examples)
    paths = write(report, options.out, options.title)
    console = Console()
    if report.table1:
        print_whole(console, in_terminal(report.table1))
        console.print(escape.terminal(caption(report.table1)), style="dim", markup=False, highlight=False)
    for note in report.notes:
        say_note(note)
    others = ", ".join(path.name for path in paths[1:])
    sentence = f"{paths[0]} written" + (f", and beside it {others}." if others else ".")
    console.print(escape.terminal(sentence), markup=False, highlight=False, soft_wrap=True)
    return 0


def _spare_torch() -> None:
    """Import spaCy without the torch that it takes along where it finds one: seconds for nothing.

    A command is a process of its own; in it spaCy's own torch layers stay unknown afterwards. Nothing happens where torch
    or spaCy is loaded already.
    """
    if "torch" in sys.modules or "spacy" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way of saying that an import fails
    try:
        import spacy  # noqa: F401
    finally:
        del sys.modules["torch"]
