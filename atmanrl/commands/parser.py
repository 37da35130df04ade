"""The parser of every command: its errors are one sentence."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningArgumentParser

from atmanrl.commands.moved import moved, renamed
from atmanrl.commands.options import OPTIONS_ARE
from atmanrl.commands.options.refused import as_typed
from atmanrl.commands.trust import check_code, keep_data_as_data
from atmanrl.io.terminal import say_error
from atmanrl.shipped import config_file


def brief(message: str) -> str:
    """Return one sentence of a parser's nested error: where it is, and what is wrong."""
    where: list[str] = []
    structure = re.compile(r"Does not validate|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value|^- $")
    for line in (line.strip().removeprefix("- ") for line in message.splitlines()):
        if match := re.match(r'(?:Parser key|Parser key:) "?([\w.]+)"?:?(.*)', line):
            where.append(match[1])
            line = match[2].strip()
        elif match := re.match(r"Problem with given class_path '([\w.]+)':(.*)", line):
            where.append(match[1].rsplit(".", 1)[-1])
            line = match[2].strip()
        if line and not structure.search(line):
            value = re.search(r"Given value: (.+)", message)  # which stands apart where several types would do
            line += f". Got value: {value[1]}" if value and "Got value" not in line else ""
            return f"{' > '.join(where)}: {line}" if where else line
    return message


class ConfigFile(ActionConfigFile):
    """The option `--config`: a file, the name of a shipped configuration, or YAML itself.

    Its `metrics` are added to those of earlier files; its other mappings take the place of theirs.
    """

    @staticmethod
    def apply_config(parser: Any, cfg: Any, dest: str, value: str) -> None:
        """Read the configuration into the options."""
        before = cfg.get("metrics")
        ActionConfigFile.apply_config(parser, cfg, dest, config_file(value))
        after = cfg.get("metrics")
        if isinstance(before, dict) and isinstance(after, dict):
            cfg["metrics"] = {**before, **after}


class RunParser(LightningArgumentParser):
    """A parser whose errors are one sentence, and whose config files run no code (see `commands.trust`).

    Attributes:
        typed: the command's arguments, shared with the parsers of its subcommands.
    """

    typed: ClassVar[Sequence[str]] = ()

    def parse_args(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:  # type: ignore[override]
        """Parse a command's arguments.

        Raises:
            UserError: a config file allows code, which only this command's own arguments may.
        """
        keep_data_as_data()
        typed = sys.argv[1:] if args is None else args
        outer, RunParser.typed = RunParser.typed, RunParser.typed or typed  # parsers call each other with parts of it
        try:
            config = super().parse_args(args, *more, **options)
        finally:
            RunParser.typed = outer
        check_code(config, typed)
        return config

    def dump(self, namespace: Any, *args: Any, **options: Any) -> str:
        """Return options as text, unless told otherwise without validating them again, which takes longer than the rest."""
        return super().dump(namespace, *args, **{"skip_validation": True, **options})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with status 2."""
        say_error(moved(message, RunParser.typed) or renamed(message) or as_typed(brief(message), RunParser.typed))
        print(OPTIONS_ARE, file=sys.stderr)
        sys.exit(2)
