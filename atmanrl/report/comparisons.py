"""Figures 3 to 5: one problem answered by several policies, side by side."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from atmanrl.report.answers import Answer, Probed
from atmanrl.report.words import Words
from atmanrl.views.trace_page import Span, TraceView, colour_scale, spans

TYPICAL = 3
"""Problems shown because they are typical: the paper's Figures 3 to 5."""

KnownSaliency = Mapping[tuple[str, str], Probed]
"""What `answers.read_probed` gives."""


@dataclass(frozen=True)
class Side:
    """One policy's answer.

    Attributes:
        name: the run's.
        answer: what it answered, None without an answer; right: whether rightly.
        length: of the reasoning, in the policy's tokens.
        words: the reasoning cut into (text, class), see `Words.spans`.
        tokens: the reasoning cut into its tokens, with saliency; empty where that is not known.
        note: the saliency reward and the losses; empty where not known.
    """

    name: str
    answer: str | None
    correct: bool
    length: int
    words: list[tuple[str, str]]
    tokens: list[Span]
    note: str


@dataclass(frozen=True)
class Comparison:
    """One problem with the answer of each policy; `typical` ones are chosen, the others drawn (see `compare`)."""

    problem: str
    prompt: str
    gold: str
    sides: list[Side]
    typical: bool


@dataclass(frozen=True)
class Comparisons:
    """Some problems, and the saliencies of no colour and of full colour; None where no saliency is known."""

    items: list[Comparison]
    scale: tuple[float, float] | None


def compare(
    answers: Mapping[str, Sequence[Answer]],
    probed: Mapping[str, KnownSaliency],
    words: Words | None,
    count: int,
    seed: int = 0,
) -> Comparisons:
    """Problems that all the runs were tested on: first `TYPICAL` typical ones, then some drawn at random.

    Typical are the problems that every run answers rightly in about its own mean length (see `_typical`): they show what
    the table's figures look like. In both kinds, problems whose saliency is known in more runs come first.

    Args:
        answers: of each run.
        probed: of each run, what is known of saliency.
        words: cuts a reasoning by class; None where the tagger is missing, the texts then stand whole.
        count: problems, at most.
        seed: of the draw.
    """
    typical = _typical(answers, probed)[: min(count, TYPICAL)]
    taken = {next(iter(sides.values())).problem for sides in typical}
    drawn = typical + _draw(answers, probed, taken, count - len(typical), seed)
    known = [view for sides in drawn for name, answer in sides.items() if (view := _view(answer, probed.get(name, {})))]
    scale = colour_scale(known) if known else None
    items = []
    for place, sides in enumerate(drawn):
        first = next(iter(sides.values()))
        shown = [_side(name, answer, probed.get(name, {}), words, scale) for name, answer in sides.items()]
        items.append(Comparison(first.problem, first.prompt, first.gold, shown, place < len(typical)))
    return Comparisons(items, scale)


def _typical(answers: Mapping[str, Sequence[Answer]], probed: Mapping[str, KnownSaliency]) -> list[dict[str, Answer]]:
    """Problems that every run answers rightly, the most typical first, with each run's most typical right answer.

    An answer is the more typical the less its length differs from its run's mean, as a ratio; a problem as much as the
    least typical of its answers. Answers whose saliency is known go before others.
    """
    chosen: dict[str, dict[str, tuple[bool, float, Answer]]] = {}
    for name, given in answers.items():
        known, mean = probed.get(name, {}), sum(a.length for a in given) / max(len(given), 1)
        chosen[name] = {}
        for answer in given:
            if answer.correct and answer.length and mean:
                unknown = (answer.problem, answer.cot) not in known
                found = unknown, abs(math.log(answer.length / mean)), answer
                chosen[name][answer.problem] = min(found, chosen[name].get(answer.problem, found), key=lambda f: f[:2])

    def order(problem: str) -> tuple[int, float, str]:
        sides = [of[problem] for of in chosen.values()]
        return sum(unknown for unknown, _, _ in sides), max(distance for _, distance, _ in sides), problem

    return [{name: of[problem][2] for name, of in chosen.items()} for problem in sorted(_common(chosen), key=order)]


def _draw(
    answers: Mapping[str, Sequence[Answer]], probed: Mapping[str, KnownSaliency], taken: Set[str], count: int, seed: int
) -> list[dict[str, Answer]]:
    """For each problem drawn, none of those taken, one answer a run: the first whose saliency is known, else the first."""
    chosen: dict[str, dict[str, tuple[bool, Answer]]] = {name: {} for name in answers}
    for name, given in answers.items():
        known = probed.get(name, {})
        for answer in given:
            unknown = (answer.problem, answer.cot) not in known
            before = chosen[name].get(answer.problem)
            if before is None or unknown < before[0]:
                chosen[name][answer.problem] = unknown, answer
    common = sorted(_common(chosen) - taken)
    random.Random(seed).shuffle(common)
    common.sort(key=lambda problem: sum(of[problem][0] for of in chosen.values()))
    return [{name: of[problem][1] for name, of in chosen.items()} for problem in common[:count]]


def _common(chosen: Mapping[str, Mapping[str, object]]) -> set[str]:
    """The problems that all the runs have."""
    return set.intersection(*map(set, chosen.values())) if chosen else set()


def _side(
    name: str, answer: Answer, known: KnownSaliency, words: Words | None, scale: tuple[float, float] | None
) -> Side:
    view = _view(answer, known)
    text = answer.cot.strip()
    cut = words.spans(text) if words else [(text, "other")]
    note = ""
    if view and view.reward is not None:
        note = f"saliency reward {view.reward:.3f}"
    if view and view.loss_initial is not None and view.loss_final is not None:
        note += f"{', ' if note else ''}answer loss {view.loss_initial:.3f} → {view.loss_final:.3f} nats"
    tokens = _stripped(spans(view, scale)) if view and scale else []
    return Side(name, answer.answer, answer.correct, answer.length, cut, tokens, note)


def _view(answer: Answer, known: KnownSaliency) -> TraceView | None:
    found = known.get((answer.problem, answer.cot))
    if found is None:
        return None
    return TraceView(
        id=answer.problem, prompt=answer.prompt, token_texts=found.token_texts, saliency=found.saliency,
        answer=answer.answer, gold=answer.gold, correct=answer.correct, reward=found.reward, loss_initial=found.loss_initial,
        loss_final=found.loss_final,
    )  # fmt: skip


def _stripped(found: list[Span]) -> list[Span]:
    """Without white space at both ends, which would only indent the text."""
    inked = [place for place, (text, _, _) in enumerate(found) if text.strip()]
    if not inked:
        return []
    kept = found[inked[0] : inked[-1] + 1]
    for place, strip in ((0, str.lstrip), (-1, str.rstrip)):
        text, share, tip = kept[place]
        kept[place] = strip(text), share, tip
    return kept
