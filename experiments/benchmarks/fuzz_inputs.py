"""Hostile texts, token ids and files, for the tests and for `fuzz.py`."""

from __future__ import annotations

import json
from random import Random
from typing import Any

SIZE = 100_000
"""Characters or bytes of the largest inputs."""

FRAGMENTS = [
    "A", "B", "C, ", "(A) ", "B or ", "answer ", "not ", "the answer is ", "a city", "7", "1,000", "3/4", "-",
    "\u2212", "\u2013", ".", ",", "e9", "\\frac", "\\frac{1", "}{", "{", "}", "\\boxed{", "\\text{", "\\(",
    "\\", "$", "**", "*", "_", "`", "<b>", "<", "&#", "&amp;", "#####", "#", "\n", " ", "\t", "\u00a0",
    "\u202f", "\u00bd", "\u2154", "\u00b2", "\u2460", "\uff21", "\uff17", "\u0667", "\u0301", "\u200b",
    "\ufeff", "\u2028", "\x00", "\x1b[0m", "\ud800", "\U0001f600", "'", '"', "(", "[", "=", "+", "%", "^", "^{",
    "\\sqrt",
]  # fmt: skip


def text(rng: Random) -> str:
    """A short text of fragments that mean something to a parser, or of any characters."""
    if rng.random() < 0.2:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randint(0, 20)))
    return "".join(rng.choices(FRAGMENTS, k=rng.randint(0, 30)))


def large_texts(rng: Random) -> list[str]:
    """Texts of `SIZE` characters: each fragment again and again, pairs of them, all in disorder."""
    repeated = [*FRAGMENTS, *(rng.choice(FRAGMENTS) + rng.choice(FRAGMENTS) for _ in range(len(FRAGMENTS)))]
    texts = [(fragment * SIZE)[:SIZE] for fragment in repeated]
    texts += [fragment + " " * (SIZE - 10) + "7 A" for fragment in ("1", "-", "(A", "answer", "\\frac", "\\frac{1")]
    disorder = rng.choices(FRAGMENTS, k=SIZE)
    return [*texts, "".join(disorder)[:SIZE], " ".join(f"w{rng.randrange(10**6)}" for _ in range(SIZE // 8))]


def token_ids(rng: Random, tokenizer: Any, most: int) -> list[int]:
    """Ids of a vocabulary, most of them of bytes, of hashes or special."""
    names = tokenizer.get_vocab()
    likely = [
        i for name, i in names.items() if "#" in name or name in ("<0x23>", "<0xC3>", "<0xA9>", "<0xEF>", "<0xBF>")
    ]
    pools = [likely, tokenizer.all_special_ids, sorted(names.values())]
    return [rng.choice(rng.choices(pools, (6, 1, 3))[0]) for _ in range(rng.randint(0, most))]


def json_lines(rng: Random, rows: list[dict[str, Any]]) -> bytes:
    """Rows as any well-behaved program may write them: a byte order mark, blank lines, escapes, ends of lines."""
    newline = rng.choice(["\n", "\r\n", "\n\n", "\n \n"])
    is_ascii = rng.random() < 0.5
    written = newline.join(json.dumps(row, ensure_ascii=is_ascii) for row in rows)
    return (rng.choice(["", "\ufeff"]) + written + rng.choice(["", newline])).encode()


def damaged(rng: Random, data: bytes) -> bytes:
    """Bytes with a few of them cut out, doubled, overwritten or replaced by something hostile."""
    hostile = [
        b"\xff",
        b"\x00",
        b'"\\ud800"',
        b"[" * 2000,
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"null",
        b"{}",
        b"[]",
        b"\r",
        b"&a [*a]",
        b"!!set",
    ]
    for _ in range(rng.randint(1, 3)):
        at, length = rng.randint(0, len(data)), rng.choice([0, 1, 1, 5, 50])
        put = rng.choice([b"", data[at : at + length] * 2, bytes([rng.randrange(256)]), rng.choice(hostile)])
        data = data[:at] + put + data[at + length :]
    return data
