"""The parser of commands with a few options of their own: its errors are one sentence, and say what was perhaps meant."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from atmanrl.commands.options.errors import OptionError
from atmanrl.errors import did_you_mean

_KINDS = {"int": "whole number", "float": "number"}


class OptionParser(argparse.ArgumentParser):
    """A parser whose errors are `OptionError`s.

    Raises:
        OptionError: an option or a choice that there is not, a value of another type, or something that is missing.
    """

    _typed: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments that are known; return them, and the others."""
        self._typed = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command's arguments."""
        options, unknown = self.parse_known_args(args, namespace)
        self.refuse(unknown)
        return options

    def refuse(self, unknown: Sequence[str], others: Iterable[str] = ()) -> None:
        """Refuse the first argument that is not known.

        Args:
            unknown: arguments.
            others: options that are taken besides this parser's, as they are typed.
        """
        for argument in unknown:
            option = argument.partition("=")[0]
            if not option.startswith("-"):
                raise self._fault(f"{self.prog} takes no further argument {argument!r}.")
            known = self._names()
            hint = did_you_mean(option, [*known, *others]) or f"its options are {', '.join(known)}."
            raise self._fault(f"{option}: {self.prog} has no such option; {hint}")

    def _names(self) -> list[str]:
        """Return all options, those of commands within this one included."""
        within = [
            each for action in self._actions if isinstance(action.choices, dict) for each in action.choices.values()
        ]
        names = {name for parser in (self, *within) for name in parser._option_string_actions}
        return sorted(name for name in names if name.startswith("--"))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(each) for each in action.choices]
            hint = did_you_mean(str(value), names)
            place = f"{action.option_strings[-1]}: " if action.option_strings else ""
            raise self._fault(f"{place}{value!r} is none of {', '.join(names)}{f'; {hint}' if hint else '.'}")

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong as a sentence."""
        typed = re.fullmatch(r"argument (\S+): invalid (\w+) value: (.*)", message)
        if typed is not None:
            raise self._fault(f"{typed[1].rpartition('/')[2]}: {typed[3]} is no {_KINDS.get(typed[2], typed[2])}.")
        missing = re.fullmatch("the following arguments are required: (.*)", message)
        if missing is None:
            raise self._fault(f"{message.removeprefix('argument ').rstrip('.')}.")
        names = [each.rpartition("/")[2] for each in missing[1].split(", ")]
        for option in (each.partition("=")[0] for each in self._typed if each.startswith("--")):
            if option not in self._option_string_actions and (hint := did_you_mean(option, names)):
                raise self._fault(f"{option}: {self.prog} has no such option; {hint}")
        raise self._fault(f"{self.prog} needs {', '.join(names)}.")

    def _fault(self, message: str) -> OptionError:
        return OptionError(message, f"{self.prog} --help lists what it takes.")
