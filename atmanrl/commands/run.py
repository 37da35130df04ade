"""`atmanrl fit`, `validate`, `test` and `predict` up to the imports: help, and errors in options, take none of them."""

from __future__ import annotations

import os
import sys

from atmanrl.commands.options.check import Check
from atmanrl.commands.options.early import check_folder, check_policy, is_first_process
from atmanrl.commands.options.help import ALL, help_text
from atmanrl.commands.options.sections import defaults_of, fill_in
from atmanrl.commands.options.typed import Node, read
from atmanrl.io.terminal import say_note


def main(args: list[str]) -> int:
    """Run a command and return the exit status; `atmanrl.commands.errors` says its errors."""
    command, *options = args
    text = help_text(command, options)
    if text is not None:
        print(text)
        return 0
    root, options = prepared(command, options)
    say_loading()
    from atmanrl.commands.run_cli import run

    return run(command, options, root)


def prepared(command: str, options: list[str], begins: bool = True) -> tuple[Node, list[str]]:
    """Check a command's options, as far as their source tells, and fill in which model and data it is about.

    Args:
        command: `fit`, ...
        options: after the command's name.
        begins: whether the command will run, so that its policy and its folder are looked at.

    Returns:
        What they set, and the options for the parser.

    Raises:
        OptionError: see `Check`.
        UserError: a value is out of its range, the policy's folder does not exist, or the run's is taken.
    """
    if ALL in options:
        return Node(), ["--help" if option == ALL else option for option in options]
    root = read(options)
    defaults = defaults_of(root)
    fill_in(root)
    check = Check(command, options, root)
    if not any(option.startswith("--print_config") or option.endswith(".help") for option in options):
        check.complete()
        check.check_values()
        if begins:
            check_policy(root)
            check_folder(command, root)
    return root, [*(f"--{name}={path}" for name, path in defaults.items()), *options]


def say_loading() -> None:
    """Say what the first seconds of a process go into."""
    if "torch" not in sys.modules and is_first_process(os.environ):
        say_note("loading torch, lightning, transformers ...")
