"""Quantities with units, from the command line and for the terminal."""

from __future__ import annotations

import re

from atmanrl.errors import UserError

DECIMAL = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
BINARY = {"KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/]*)")


class UnitError(UserError):
    """A quantity on the command line cannot be read; the message names the option."""


def parse_bytes(text: str, option: str) -> float:
    """Read `80GB`, `80GiB`, `24 G` as bytes, and a bandwidth such as `3.35TB/s` as bytes a second.

    Raises:
        UnitError: it is no quantity above 0 with such a unit.
    """
    return _parse(text, option, ("B", "B/S"), {**DECIMAL, **BINARY}, "80GB or 80GiB")


def parse_flops(text: str, option: str) -> float:
    """Read `989T`, `989TFLOPS`, `1P` as FLOP/s.

    Raises:
        UnitError: it is no quantity above 0 with such a unit.
    """
    return _parse(text, option, ("FLOPS", "FLOP/S", "FLOP"), DECIMAL, "989T or 989TFLOPS")


def _parse(text: str, option: str, endings: tuple[str, ...], prefixes: dict[str, int], example: str) -> float:
    if quantity := _QUANTITY.fullmatch(text.strip()):
        unit = quantity[2].upper()
        for ending in sorted(endings, key=len, reverse=True):
            if unit.endswith(ending):
                unit = unit.removesuffix(ending)
                break
        value = float(quantity[1]) * prefixes.get(unit, 0)
        if value > 0:
            return value
    raise UnitError(f"{option} {text!r} is no quantity above 0 with a unit that is known: write it like {example}.")


def bytes_text(count: float) -> str:
    """Write bytes as `12.3 GB`, in decimal units as memory is sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def seconds_text(seconds: float) -> str:
    """Write seconds as `12.3 s`, `4.5 min`, `6.7 h` or `8.9 days`."""
    for unit, size in (("days", 86400 * 2), ("h", 7200), ("min", 120)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.3g} s"


def counted(count: int, noun: str) -> str:
    """Write a number of things as `1 update` or `2 updates`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
