"""What can be refused of `atmanrl probe` and `explain` before anything is imported."""

from __future__ import annotations

from collections.abc import Sequence

from atmanrl.commands.options.check import Check
from atmanrl.commands.options.declared import declared
from atmanrl.commands.options.early import check_model
from atmanrl.commands.options.errors import OptionError
from atmanrl.commands.options.guards import refusal_of_call
from atmanrl.commands.options.keys import with_whole_keys
from atmanrl.commands.options.typed import Node, read
from atmanrl.commands.options.values import taken_as
from atmanrl.errors import UserError
from atmanrl.io.files import user_path
from atmanrl.io.row_files import RowFiles


def check_plain(command: str, args: Sequence[str]) -> None:
    """Check the options of a command by the source of what takes them, and by a look at the disk.

    Raises:
        OptionError: see `Check`; or a needed option is missing.
        UserError: a value is out of its range, or there is no such model or file of traces.
    """
    if any(option.startswith("--print_config") for option in args):
        return
    root, options = read(args), declared(command)
    check = Check(command, args, root)
    missing = [f"--{name}" for name in options.needed if name not in root.children]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise OptionError(f"{' and '.join(missing)} {verb} missing; `atmanrl {command} --help` shows an example.")
    check.check_values()
    names = root.children.keys() & options.kinds.keys()
    values = {name: each for name in names for each in taken_as(root.children[name].value, options.kinds[name])}
    as_attributes = {f"options.{name}": value for name, value in values.items()}
    for function, arguments in ((options.main, as_attributes), (options.called, values)):
        message = None if function is None else refusal_of_call(function, arguments, (*names, *options.handed))
        if message is not None:
            raise UserError(with_whole_keys(message, root, command))
    check_model(root.at("model"))
    _check_traces(root.at("traces"))


def _check_traces(node: Node | None) -> None:
    if node is not None and isinstance(node.value, str):
        RowFiles(user_path(node.value))
