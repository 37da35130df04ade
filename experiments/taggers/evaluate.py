"""How well the tagger-free default and a spaCy pipeline find the numbers and symbols of gold-tagged English.

    python -m experiments.taggers.evaluate --gold FOLDER --pipeline PATH en_core_web_sm --json FILE

FOLDER holds `.conllu` files of Universal Dependencies English EWT. Gold are its universal tags NUM and SYM; judged are
the classes NUMBER and SYMBOL of `atmanrl.metrics.tagger`, and a pipeline's own tags beside them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from atmanrl.metrics.tagger import TokenClass, build_tagger, classify

CLASSES = ("NUM", "SYM")
Labels = list[str]
OURS = {TokenClass.NUMBER: "NUM", TokenClass.SYMBOL: "SYM"}


@dataclass
class Sentence:
    """A gold-tagged sentence: its words, whether a space follows each, and their tags."""

    words: list[str] = field(default_factory=list)
    spaces: list[bool] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The sentence as it was written."""
        return "".join(word + " " * space for word, space in zip(self.words, self.spaces, strict=True))


def read_conllu(path: Path) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file. Words of a contraction (`do` `n't`) stand without a space between them."""
    sentence, last_of_contraction, space_after = Sentence(), 0, True
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if not line:
            if sentence.words:
                yield sentence
            sentence, last_of_contraction = Sentence(), 0
        elif not line.startswith("#"):
            number, form, _, tag, *_, misc = line.split("\t")
            space = "SpaceAfter=No" not in misc
            if "-" in number:  # the contraction as a whole: only its space counts
                last_of_contraction, space_after = int(number.split("-")[1]), space
            elif "." not in number:  # 8.1 is a word that is understood, not written
                inside = int(number) <= last_of_contraction
                sentence.words.append(form)
                sentence.spaces.append(space_after and int(number) == last_of_contraction if inside else space)
                sentence.tags.append(tag)


def by_rules(doc: Doc) -> Labels:
    """The classes that the project counts: lexical rules, and the pipeline's tags where it has any."""
    return [OURS.get(TokenClass(value), "") for value in classify(doc).tolist()]


def by_tags(doc: Doc) -> Labels:
    """The pipeline's own tags."""
    return [token.pos_ for token in doc]


def scores(right: int, found: int, gold: int) -> dict[str, float]:
    """Precision, recall and F1 in per cent, with the counts behind them."""
    precision, recall = right / max(found, 1), right / max(gold, 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-12)
    return {
        "precision": round(100 * precision, 2), "recall": round(100 * recall, 2), "f1": round(100 * f1, 2),
        "right": right, "found": found, "gold": gold,
    }  # fmt: skip


def tagging(nlp: Language, sentences: list[Sentence], label: Callable[[Doc], Labels]) -> dict[str, Any]:
    """Tags of gold tokens: what the rules or the tagger know, whoever cuts the text."""
    counts: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str, str]] = Counter()
    docs = nlp.pipe(Doc(nlp.vocab, words=s.words, spaces=s.spaces) for s in sentences)
    for sentence, doc in zip(sentences, docs, strict=True):
        for word, gold, found in zip(sentence.words, sentence.tags, label(doc), strict=True):
            counts.update([(gold, "gold"), (found, "found")])
            if gold == found:
                counts[gold, "right"] += 1
            elif gold in CLASSES or found in CLASSES:
                wrong[word.lower(), gold, found if found in CLASSES else "neither"] += 1
    return {
        **{name: scores(*(counts[name, kind] for kind in ("right", "found", "gold"))) for name in CLASSES},
        "most_frequent_errors": [
            {"word": word, "gold": gold, "found": found, "times": times}
            for (word, gold, found), times in wrong.most_common(12)
        ],
    }


def spans(words: list[str], spaces: list[bool], labels: Labels) -> set[tuple[int, int, str]]:
    """Where each number and symbol stands in the text."""
    found, start = set(), 0
    for word, space, name in zip(words, spaces, labels, strict=True):
        if name in CLASSES:
            found.add((start, start + len(word), name))
        start += len(word) + space
    return found


def from_text(nlp: Language, sentences: list[Sentence], label: Callable[[Doc], Labels]) -> dict[str, Any]:
    """Numbers and symbols found in the text as it was written: right only where the text is cut as gold cuts it, too."""
    counts: Counter[tuple[str, str]] = Counter()
    tokens = 0
    for sentence, doc in zip(sentences, nlp.pipe(s.text for s in sentences), strict=True):
        tokens += sum(not token.is_space for token in doc)
        gold = spans(sentence.words, sentence.spaces, sentence.tags)
        found = {(t.idx, t.idx + len(t), name) for t, name in zip(doc, label(doc), strict=True) if name in CLASSES}
        for kind, some in (("gold", gold), ("found", found), ("right", gold & found)):
            counts.update((name, kind) for _, _, name in some)
    gold_tokens = sum(len(s.words) for s in sentences)
    return {
        **{name: scores(*(counts[name, kind] for kind in ("right", "found", "gold"))) for name in CLASSES},
        "share_pct": {name: round(100 * counts[name, "found"] / tokens, 3) for name in CLASSES},
        "gold_share_pct": {name: round(100 * counts[name, "gold"] / gold_tokens, 3) for name in CLASSES},
    }


def measure(gold: Path, pipelines: Sequence[str]) -> dict[str, Any]:
    """Every tagger on every file of gold tags."""
    files = sorted(gold.glob("*.conllu"))
    if not files:
        raise SystemExit(f"{gold} holds no .conllu file; get UD English EWT from universaldependencies.org.")
    blank = build_tagger()
    taggers: dict[str, tuple[Language, Callable[[Doc], Labels]]] = {"lexical rules (default)": (blank, by_rules)}
    for pipeline in pipelines:
        nlp = build_tagger(pipeline)
        name = f"{nlp.meta['lang']}_{nlp.meta['name']} {nlp.meta['version']}"
        taggers |= {f"rules and {name}": (nlp, by_rules), f"{name} alone": (nlp, by_tags)}
    found: dict[str, Any] = {}
    for file in files:
        sentences = list(read_conllu(file))
        found[file.name] = {"sentences": len(sentences), "words": sum(len(s.words) for s in sentences)}
        for name, (nlp, label) in taggers.items():
            found[file.name][name] = {
                "gold_tokens": tagging(nlp, sentences, label), "from_text": from_text(nlp, sentences, label),
            }  # fmt: skip
            line = ", ".join(
                f"{c} P {s['precision']} R {s['recall']} F1 {s['f1']}"
                for c in CLASSES
                for s in [found[file.name][name]["gold_tokens"][c]]
            )
            print(f"{file.name}: {name}: {line}", flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Hold taggers against gold tags of UD English EWT.")
    parser.add_argument("--gold", type=Path, required=True, help="folder with .conllu files")
    parser.add_argument(
        "--pipeline", nargs="*", default=[], help="names or paths of spaCy pipelines; without any, lexical rules alone"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {
        "command": "python -m experiments.taggers.evaluate --gold FOLDER --pipeline PATH en_core_web_sm",
        "versions": {"python": platform.python_version(), "spacy": version("spacy")},
        "files": measure(args.gold, args.pipeline),
    }
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
