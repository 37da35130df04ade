"""Options that the parser alone can refuse, those of other packages' classes: named whole, with what was meant."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Sequence

from atmanrl.commands.options.errors import OptionError
from atmanrl.commands.options.typed import read
from atmanrl.errors import did_you_mean

SHORT = "torch.optim"
"""Where a class lies that is named without its module, as optimizers are."""


def as_typed(sentence: str, typed: Sequence[str]) -> str:
    """Return an error in which an option stands whole, where the parser names but the end of it, and what was meant.

    Args:
        sentence: the parser's, in brief.
        typed: the arguments of the command.

    Example:
        "Option 'lrr' is not accepted" becomes "--model.optimizer.lrr: SGD has no option 'lrr'; did you mean
        --model.optimizer.lr?".
    """
    refused = re.search(r"unrecognized arguments: --(\S+)|Option '(\w+)' is not accepted", sentence)
    if refused is None:
        return _of_no_class(sentence, typed) or sentence
    for argument in typed:
        option = argument.partition("=")[0]
        if refused[1] and argument.startswith("--") and argument.endswith(f".{refused[1]}"):
            return sentence.replace(f"--{refused[1]}", argument)
        if refused[2] and option.startswith("--") and refused[2] in option[2:].split("."):
            return f"{option}: {_answer(sentence, option, refused[2], typed)}"
    return sentence


def _of_no_class(sentence: str, typed: Sequence[str]) -> str | None:
    """Return what to name before an option of a class, where the parser has none; None if that is not its complaint."""
    given = re.search(r"Got value: (?:NestedArg\(key='|Namespace\()(\w+)", sentence)
    if given is None:
        return None
    for option in (each.partition("=")[0] for each in typed if each.startswith("--")):
        owner, _, name = option.rpartition(".")
        if owner and name == given[1]:
            return f"{option}: this is an option of a class, and none is named; name it first, by {owner}=CLASS."
    return None


def _answer(sentence: str, option: str, name: str, typed: Sequence[str]) -> str:
    """Return what the object's class says to a name that it does not take; the parser's sentence where that is unknown."""
    names = option[2:].split(".")
    place = names.index(name)
    try:
        owner = read([each for each in typed if each.startswith("-")]).at(*names[:place])
        path = "" if owner is None else owner.class_path or ""
        takes = inspect.signature(pkgutil.resolve_name(path if "." in path else f"{SHORT}.{path}")).parameters
    except (OptionError, ImportError, AttributeError, ValueError, TypeError):
        return sentence
    before, after = f"--{'.'.join([*names[:place], ''])}", "".join(f".{each}" for each in names[place + 1 :])
    hint = did_you_mean(name, takes, before, after) or f"its options are {', '.join(sorted(takes))}."
    return f"{path.rpartition('.')[2]} has no option {name!r}; {hint}"
