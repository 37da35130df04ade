"""Values as they are typed, and the types that options take."""

from __future__ import annotations

from collections.abc import Sequence

from atmanrl.commands.options.signatures import Kind

_TRUTH = ("true", "false", "yes", "no", "on", "off", "0", "1")


def fits(value: object, scalars: Sequence[str]) -> bool:
    """Return whether a value may be one of these types; where the parser may think otherwise, it is asked."""
    text = str(value).lower()
    number = isinstance(value, int | float) or _is_number(text)
    return (number and bool({"int", "float"} & set(scalars))) or (
        "bool" in scalars and (isinstance(value, bool) or text in _TRUTH)
    )


def taken_as(value: object, kind: Kind) -> list[object]:
    """Return in a list the value that an option of a kind takes a typed one for; an empty list where that is open."""
    scalars = kind.scalars
    if value is None:
        return [None] if "None" in scalars else []
    if isinstance(value, bool):
        return [value] if "bool" in scalars else []
    if isinstance(value, int):
        return [value] if "int" in scalars else [float(value)] if "float" in scalars else []
    if isinstance(value, float):
        return [value] if "float" in scalars else []
    if isinstance(value, str):
        if value in kind.choices or ("str" in scalars and not {"int", "float", "bool"} & set(scalars)):
            return [value]
        return [float(value)] if "float" in scalars and _is_number(value) else []  # YAML has 1e-6 for a text
    simple = isinstance(value, list) and all(isinstance(each, int | float) for each in value)
    return [value] if simple and not kind.known else []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
