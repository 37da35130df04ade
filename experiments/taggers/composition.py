"""Table 1's composition by several taggers side by side, of the reasonings that the evidence's tests stored.

    python -m experiments.taggers.composition --pipeline en_core_web_sm --json experiments/taggers/results/composition.json

The lexical rules are always the first column. A pipeline counts twice: with the rules, as `TokenComposition` does, and as
it comes, by its own tokens and tags. Figures are means over seeds with their standard deviation.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import spacy
from spacy.tokens import Doc

from atmanrl.metrics.columns import COMPOSITION
from atmanrl.metrics.conditions import LEXICAL_RULES
from atmanrl.metrics.tagger import build_tagger, count_tokens, installed

RESULTS = Path("experiments/evidence/results")
ARMS = {"a": "outcome alone", "b": "outcome + saliency", "d": "outcome + price on tokens"}


def shares(texts: Sequence[str], pipeline: str | None) -> dict[str, float]:
    """Return the shares of numbers, stop words and symbols among the tokens of all texts together, in per cent."""
    return _shares([count_tokens(doc) for doc in build_tagger(pipeline).pipe(texts, batch_size=64)])


def shares_as_it_comes(texts: Sequence[str], pipeline: str) -> dict[str, float]:
    """Return the same shares by a pipeline's own tokens and tags, NUM and SYM; stop words are those not tagged so."""
    nlp = spacy.load(installed(pipeline), exclude=["parser", "senter", "ner", "lemmatizer"])
    return _shares([_tagged(doc) for doc in nlp.pipe(texts, batch_size=64)])


def _tagged(doc: Doc) -> tuple[int, int, int, int]:
    tokens = [token for token in doc if not token.is_space]
    numbers, symbols = (sum(token.pos_ == tag for token in tokens) for tag in ("NUM", "SYM"))
    return len(tokens), numbers, sum(t.is_stop and t.pos_ not in ("NUM", "SYM") for t in tokens), symbols


def _shares(counts: Sequence[Sequence[int]]) -> dict[str, float]:
    tokens, *classes = np.sum(counts, axis=0)
    return {name: 100 * float(count) / float(tokens) for name, count in zip(COMPOSITION, classes, strict=True)}


def reasonings(run: Path, samples: int) -> list[str]:
    """Return the reasonings of a run's test, the first samples of each problem."""
    with gzip.open(run / "completions.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["cot"] for row in rows if row["sample"] < samples]


def measure(results: Path, seeds: int, samples: int, pipelines: Sequence[str]) -> dict[str, Any]:
    """Count every arm's reasonings, seed by seed, by every tagger."""
    arms: dict[str, Any] = {}
    for key, name in ARMS.items():
        texts = [reasonings(results / f"{key}-{seed}", samples) for seed in range(seeds)]
        counted = {LEXICAL_RULES: [shares(part, None) for part in texts]}
        for pipeline in pipelines:
            counted[f"rules and {pipeline}"] = [shares(part, pipeline) for part in texts]
            counted[f"{pipeline} as it comes"] = [shares_as_it_comes(part, pipeline) for part in texts]
        by_tagger = {
            tagger: {share: [seed[share] for seed in each] for share in COMPOSITION} for tagger, each in counted.items()
        }
        arms[key] = {"name": name, "reasonings": sum(map(len, texts)), "shares": by_tagger}
    return arms


def table(arms: dict[str, Any]) -> str:
    """Return the comparison in Markdown."""
    taggers = list(next(iter(arms.values()))["shares"])
    heads = [
        f"{share.removesuffix('_pct').replace('_', ' ')} %: {tagger}" for share in COMPOSITION for tagger in taggers
    ]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for arm in arms.values():
        cells = [_cell(arm["shares"][tagger][share]) for share in COMPOSITION for tagger in taggers]
        lines.append(f"| {arm['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description="Table 1's composition by several taggers side by side.")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the evidence's runs")
    parser.add_argument("--pipeline", nargs="*", default=[], help="names or paths of spaCy pipelines")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1, help="reasonings of each test problem")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    arms = measure(args.results, args.seeds, args.samples, args.pipeline)
    print(table(arms))
    if args.json:
        found = {
            "command": "python -m experiments.taggers.composition --pipeline en_core_web_sm --json FILE",
            "versions": {"python": platform.python_version(), "spacy": version("spacy")},
            "seeds": args.seeds, "samples": args.samples, "arms": arms,
        }  # fmt: skip
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
