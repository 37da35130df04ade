"""Generated and hostile inputs for every parser: does one raise, misjudge an answer, or take long?

    python -m experiments.benchmarks.fuzz --cases 10000 --json experiments/benchmarks/results/fuzz.json

Each parser is given `--cases` generated inputs, of which what is right is known from how they were made, and then large
ones of 100 kB. Counted are its inputs, its exceptions (but for a reader's `UserError`, which is its answer to a damaged
file), its wrong results (a right answer in some dress that is judged wrong, a neighbour of it that is judged right, a
split or a row that is not the one that was written), and the seconds of processor time of its slowest input.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from experiments.benchmarks.fuzz_parsers import Parser, parsers


@dataclass
class Result:
    """What a parser made of its inputs."""

    inputs: int = 0
    exceptions: int = 0
    wrong: int = 0
    slowest_s: float = 0.0
    slowest: str = ""
    examples: list[str] = field(default_factory=list)


def run(parser: Parser, cases: int, seed: int = 0, large: bool = True) -> Result:
    """Give a parser its inputs."""
    rng, result = Random(f"{parser.name}/{seed}"), Result()
    for number in range(cases):
        given, expected = parser.draw(rng)
        _judge(parser, given, expected, result, f"case {number}")
    for given in parser.large(rng) if large else ():
        _judge(parser, given, None, result, f"{len(given)} of {given[:12]!r}")
    return result


def _judge(parser: Parser, given: object, expected: object, result: Result, name: str) -> None:
    result.inputs += 1
    start = time.process_time()
    try:
        value = parser.parse(given)
    except parser.allowed:
        value = None
        if expected is not None:
            result.wrong += 1
            result.examples.append(f"refused: {given!r:.200}")
            return
    except Exception as error:  # any is a fault, whatever its class
        result.exceptions += 1
        result.examples.append(f"{type(error).__name__}: {error} of {given!r:.200}")
        return
    finally:
        seconds = time.process_time() - start
        if seconds > result.slowest_s:
            result.slowest_s, result.slowest = round(seconds, 4), name
    if expected is not None and not parser.is_right(given, value, expected):
        result.wrong += 1
        result.examples.append(f"{value!r:.80} for {expected!r:.80} of {given!r:.200}")


def main() -> None:
    """Run all parsers, print a table and write it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--sizes", choices=("small", "all"), default="all", help="small leaves out those of 100 kB")
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    results = {}
    print(f"{'parser':22}{'inputs':>8}{'exceptions':>12}{'wrong':>7}{'slowest':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for parser in parsers(Path(folder)):
            result = run(parser, options.cases, options.seed, options.sizes == "all")
            results[parser.name] = {**asdict(result), "examples": result.examples[:5]}
            print(
                f"{parser.name:22}{result.inputs:8}{result.exceptions:12}{result.wrong:7}{result.slowest_s:9.3f}s"
                f"  {result.slowest}",
                flush=True,
            )
            for example in result.examples[:5]:
                print("   ", ascii(example))
    if options.json:
        options.json.write_text(json.dumps({"cases": options.cases, "parsers": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
