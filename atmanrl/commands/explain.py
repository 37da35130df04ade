"""`atmanrl explain`: one question, the reasoning that a model writes for it, and the saliency of each of its tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from atmanrl.commands.libraries import quiet
from atmanrl.commands.parser import RunParser
from atmanrl.errors import UserError
from atmanrl.io import escape
from atmanrl.io.files import user_path
from atmanrl.probe.explain import explain
from atmanrl.rollouts import Splitter

DESCRIPTION = """Let a model answer a question, and show how much each token of its reasoning matters to the answer.

  atmanrl explain --model MODEL --prompt "How many are 3 and 4?" --gold 7 --html saliency.html
"""


def main(args: list[str]) -> int:
    """Explain one answer, and return the exit status.

    Raises:
        UserError: an option is out of its range, the model cannot be used, or nothing it wrote can be explained.
    """
    quiet()
    parser = _parser()
    options = parser.instantiate(parser.parse_args(args)).as_dict()
    files = {name: options.pop(name) for name in ("html", "json", "figure")}
    paths = {name: user_path(str(path)) for name, path in files.items() if path is not None}
    for name, path in paths.items():
        if path.is_dir():
            raise UserError(f"--{name} {path} is a folder; name a file.")
    options.pop("config", None)
    model, gold = options.pop("model"), options.pop("gold")
    explanation = explain(model, None, answer=gold, **options)
    console = Console(file=sys.stdout)
    if console.is_terminal:
        console.print(explanation)
    else:
        print(explanation)
    write: dict[str, Callable[[Path], object]] = {
        "html": explanation.to_html, "json": explanation.save, "figure": explanation.figure
    }  # fmt: skip
    for name, path in paths.items():
        write[name](path)
        print(escape.terminal(f"{path} written."))
    return 0


def _parser() -> RunParser:
    parser = RunParser(prog="atmanrl explain", description=DESCRIPTION)
    parser.add_argument("--model", type=str, required=True, help="a Hugging Face folder or a name on the hub")
    parser.add_argument("--prompt", type=str, required=True, help="the user's turn")
    # `str | None` would take a text such as ##### for a comment of YAML, and so for none at all
    parser.add_argument("--cot", type=str, default=None, help="a reasoning to be explained, instead of the model's own")
    parser.add_argument("--gold", type=str, default=None, help="the right answer; without it the model's own")
    parser.add_argument(
        "--delimiter", type=Splitter | str, default=None,
        help="between reasoning and answer: a text, or a Splitter by its class path; without it it is recognised",
    )  # fmt: skip
    parser.add_argument("--html", type=Path | None, default=None, help="write a page to look at")
    parser.add_argument("--json", type=Path | None, default=None, help="write all values")
    parser.add_argument("--figure", type=Path | None, default=None, help="draw Figure 1 (.png, .pdf, .svg)")
    parser.add_function_arguments(explain, skip={"model", "tokenizer", "prompt", "cot", "answer", "delimiter"})
    parser.add_argument("-c", "--config", action="config", help="a YAML file with these options")
    return parser
