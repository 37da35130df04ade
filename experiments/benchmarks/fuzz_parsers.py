"""Every parser of ours with its generator of inputs and what is right for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

from transformers import AutoTokenizer

from atmanrl.errors import UserError
from atmanrl.metrics.tagger import build_tagger, count_tokens
from atmanrl.rollouts import split, traces
from atmanrl.rollouts.offsets import decode
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.sweep import space
from atmanrl.tasks import DELIMITER, GSM8K, MMLU, Split, Task
from atmanrl.tasks.answers import parse_number, same_number
from atmanrl.tasks.letters import parse_letter
from experiments.benchmarks import fuzz_answers, fuzz_inputs

LAPTOP = Path(__file__).parents[1] / "laptop/blank"
SWEEP = b"""\
method: grid
metric: {name: val/pass_at_1, goal: maximize}
parameters:
  a.b: {values: [1, 2.5, x]}
  c: {min: 1, max: 4}
command: [atmanrl, fit, '${args}']
"""


@dataclass
class Parser:
    """A parser under test.

    Attributes:
        name: of the parser, in the table.
        draw: an input and what is expected of it; None where it must only not raise.
        parse: the parser.
        is_right: whether input, output and expectation fit.
        large: inputs of 100 kB.
        allowed: exceptions that are an answer.
    """

    name: str
    draw: Callable[[Random], tuple[Any, Any]]
    parse: Callable[[Any], Any]
    is_right: Callable[[Any, Any, Any], bool] = lambda given, value, expected: value == expected
    large: Callable[[Random], Sequence[Any]] = fuzz_inputs.large_texts
    allowed: tuple[type[Exception], ...] = ()


def parsers(folder: Path) -> list[Parser]:
    """All parsers; readers of files write theirs into `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(LAPTOP)
    tagger = build_tagger()

    def tagged(text: str) -> Any:
        doc = tagger(text)
        count_tokens(doc)
        return doc

    ids_of = lambda rng: fuzz_inputs.token_ids(rng, tokenizer, 16)  # noqa: E731
    large_ids = lambda rng: [  # noqa: E731
        [2] * 8_000, *([i] * 50_000 for i in tokenizer.convert_tokens_to_ids(["<0x23>", "<0xC3>", "#", DELIMITER])),
        fuzz_inputs.token_ids(Random(1), tokenizer, 0) + [rng.randrange(len(tokenizer)) for _ in range(30_000)],
    ]  # fmt: skip
    return [
        Parser("parse_number", _mostly(fuzz_answers.number), parse_number),
        Parser("same_number", _mostly(fuzz_answers.number), _judgement, lambda text, _, value: _tells(text, value)),
        Parser("parse_letter", _mostly(fuzz_answers.letter), parse_letter),
        Parser("split", lambda rng: (ids_of(rng), True), lambda ids: split(tokenizer, ids),
               lambda ids, parts, _: parts.cot_length == _longest_prefix(tokenizer, ids, parts.text), large_ids),
        Parser("token_texts", lambda rng: (ids_of(rng), True), lambda ids: token_texts(tokenizer, ids),
               lambda ids, texts, _: "".join(texts) == decode(tokenizer, ids) and len(texts) == len(ids), large_ids),
        Parser("tagger", lambda rng: (_written(fuzz_inputs.text(rng)), True), tagged,
               lambda text, got, _: got.text == text, lambda rng: [_written(t) for t in fuzz_inputs.large_texts(rng)]),
        _reader("GSM8K rows", folder / "train.jsonl", _gsm8k, lambda _: _golds(GSM8K(str(folder)), "train")),
        _reader("MMLU rows", folder / "test.jsonl", _mmlu, lambda _: _golds(MMLU(str(folder)), "test")),
        _reader("trace rows", folder / "traces.jsonl", _trace, lambda file: [row["gold"] for _, row in traces.read(file)]),
        _reader("sweep files", folder / "sweep.yaml", lambda rng: (SWEEP, 12), lambda file: space.load(file).size),
    ]  # fmt: skip


def _written(text: str) -> str:
    """A text as a tokenizer may give it: no halves of surrogate pairs."""
    return text.encode(errors="replace").decode()


def _mostly(draw: Callable[[Random], tuple[str, Any]]) -> Callable[[Random], tuple[str, Any]]:
    """Answers whose value is known; one in five is any text, of which nothing is expected."""
    return lambda rng: draw(rng) if rng.random() < 0.8 else (fuzz_inputs.text(rng), None)


def _golds(task: Task, part: Split) -> list[str]:
    return [problem.gold for problem in task.problems(part)]


def _judgement(text: str) -> bool:
    return same_number(text, "72")


def _tells(text: str, value: Fraction) -> bool:
    """Whether a text is judged right for its number and wrong for each neighbour."""
    return same_number(text, str(value)) and not any(same_number(text, str(o)) for o in fuzz_answers.neighbours(value))


def _longest_prefix(tokenizer: Any, ids: list[int], text: str) -> int:
    """How many tokens lie before the delimiter, by decoding every prefix."""
    cot, delimiter, _ = text.partition(DELIMITER)
    if not delimiter:
        return len(ids) - next((i for i, t in enumerate(reversed(ids)) if t not in tokenizer.all_special_ids), len(ids))
    return max(k for k in range(len(ids) + 1) if cot.startswith(decode(tokenizer, ids[:k])))


def _reader(name: str, file: Path, draw: Callable[[Random], tuple[bytes, Any]], read: Callable[[Path], Any]) -> Parser:
    """A reader of a file, half of whose inputs are damaged and may be refused, in a sentence."""

    def drawn(rng: Random) -> tuple[bytes, Any]:
        data, expected = draw(rng)
        return (data, expected) if rng.random() < 0.5 else (fuzz_inputs.damaged(rng, data), None)

    def parse(data: bytes) -> Any:
        file.write_bytes(data)
        return read(file)

    def large(rng: Random) -> list[bytes]:
        data, _ = draw(rng)
        texts = [t.encode(errors="surrogatepass") for t in fuzz_inputs.large_texts(rng)[:40]]
        return [*texts, (data * 10**5)[:100_000]]

    return Parser(name, drawn, parse, large=large, allowed=(UserError,))


def _gsm8k(rng: Random) -> tuple[bytes, list[str]]:
    golds = [str(rng.randint(-(10**6), 10**6)) for _ in range(rng.randint(1, 4))]
    rows = [
        {"question": f"How many? \u2028\u20ac {i}", "answer": f"2 <<1+1=2>>2\n#### {int(g):,}"}
        for i, g in enumerate(golds)
    ]
    return fuzz_inputs.json_lines(rng, rows), golds


def _mmlu(rng: Random) -> tuple[bytes, list[str]]:
    golds = [rng.randrange(4) for _ in range(rng.randint(1, 4))]
    rows = [
        {
            "subject": "virology",
            "question": f"Which \u20ac {i}?",
            "choices": ["red", "2", "", "Vitamin C"],
            "answer": rng.choice([g, "ABCD"[g]]),
        }
        for i, g in enumerate(golds)
    ]
    return fuzz_inputs.json_lines(rng, rows), ["ABCD"[g] for g in golds]


def _trace(rng: Random) -> tuple[bytes, list[str]]:
    golds = [fuzz_answers.number(rng)[0] for _ in range(rng.randint(1, 4))]
    rows = [
        {"prompt": "1 + 1?", "cot": f"so \u20ac\u2028 {g}", "gold": g, "rewards": {"outcome": None}, "row": 3}
        for g in golds
    ]
    return fuzz_inputs.json_lines(rng, json.loads(json.dumps(rows))), golds
