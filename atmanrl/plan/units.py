"""Quantities as they are written on a command line, and back."""

from __future__ import annotations

import re

from atmanrl.errors import UserError

DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
BINARY = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)")


class UnitError(UserError):
    """A quantity with a unit that is not known here."""


def parse_bytes(text: str, option: str) -> float:
    """Bytes of `80GB`, `80GiB`, `24 G`, also of `3.35TB/s`: a bandwidth is bytes a second.

    Raises:
        UnitError: it names the option.
    """
    return _parse(text, option, ("B", "B/S"), {**DECIMAL, **BINARY}, "80GB or 80GiB")


def parse_flops(text: str, option: str) -> float:
    """FLOP/s of `989T`, `989TFLOPS`, `1P`.

    Raises:
        UnitError: it names the option.
    """
    return _parse(text, option, ("FLOPS", "FLOP/S", "FLOP"), DECIMAL, "989T or 989TFLOPS")


def _parse(text: str, option: str, endings: tuple[str, ...], prefixes: dict[str, int], example: str) -> float:
    found = _QUANTITY.fullmatch(text.strip())
    unit = found[2].upper() if found else None
    if found and unit is not None:
        for ending in sorted(endings, key=len, reverse=True):
            if unit.endswith(ending):
                unit = unit.removesuffix(ending)
                break
        value = float(found[1]) * prefixes.get(unit, 0)
        if value > 0:
            return value
    raise UnitError(f"{option} {text!r} is no quantity above 0 with a unit that is known: write it like {example}.")


def bytes_text(count: float) -> str:
    """`12.3 GB`, in decimal units as memory is sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def seconds_text(seconds: float) -> str:
    """`12.3 s`, `4.5 min`, `6.7 h` or `8.9 days`."""
    for unit, size in (("days", 86400 * 2), ("h", 7200), ("min", 120)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.3g} s"
