"""Figures 3 to 5: one problem answered by several policies, side by side."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atmanrl.report.answers import Answer, Probed
from atmanrl.report.trace_page import Span, TraceView, colour_scale, spans
from atmanrl.report.words import Words

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
    right: bool
    length: int
    words: list[tuple[str, str]]
    tokens: list[Span]
    note: str


@dataclass(frozen=True)
class Comparison:
    """One problem with the answer of each policy."""

    problem: str
    prompt: str
    gold: str
    sides: list[Side]


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
    """Problems that all the runs were tested on, drawn at random; those whose saliency is known come first.

    Args:
        answers: of each run.
        probed: of each run, what is known of saliency.
        words: cuts a reasoning by class; None where the tagger is missing, the texts then stand whole.
        count: problems, at most.
        seed: of the draw.
    """
    drawn = _draw(answers, probed, count, seed)
    known = [view for sides in drawn for name, answer in sides.items() if (view := _view(answer, probed.get(name, {})))]
    scale = colour_scale(known) if known else None
    items = []
    for sides in drawn:
        first = next(iter(sides.values()))
        shown = [_side(name, answer, probed.get(name, {}), words, scale) for name, answer in sides.items()]
        items.append(Comparison(first.problem, first.prompt, first.gold, shown))
    return Comparisons(items, scale)


def _draw(
    answers: Mapping[str, Sequence[Answer]], probed: Mapping[str, KnownSaliency], count: int, seed: int
) -> list[dict[str, Answer]]:
    """For each drawn problem one answer a run: the first whose saliency is known, else the first."""
    chosen: dict[str, dict[str, Answer]] = {name: {} for name in answers}
    with_saliency: dict[str, int] = {}
    for name, given in answers.items():
        known = probed.get(name, {})
        for answer in given:
            before = chosen[name].get(answer.problem)
            here = (answer.problem, answer.cot) in known
            if before is None or (here and (before.problem, before.cot) not in known):
                chosen[name][answer.problem] = answer
                with_saliency[answer.problem] = with_saliency.get(answer.problem, 0) + here
    if not chosen:
        return []
    common = sorted(set.intersection(*(set(of) for of in chosen.values())))
    random.Random(seed).shuffle(common)
    common.sort(key=lambda problem: -with_saliency[problem])
    return [{name: of[problem] for name, of in chosen.items()} for problem in common[:count]]


def _side(
    name: str, answer: Answer, known: KnownSaliency, words: Words | None, scale: tuple[float, float] | None
) -> Side:
    view = _view(answer, known)
    cut = words.spans(answer.cot) if words else [(answer.cot, "other")]
    note = ""
    if view and view.reward is not None:
        note = f"saliency reward {view.reward:.3f}"
    if view and view.loss_initial is not None and view.loss_final is not None:
        note += f"{', ' if note else ''}answer loss {view.loss_initial:.3f} → {view.loss_final:.3f} nats"
    tokens = spans(view, scale) if view and scale else []
    return Side(name, answer.answer, answer.right, answer.length, cut, tokens, note)


def _view(answer: Answer, known: KnownSaliency) -> TraceView | None:
    found = known.get((answer.problem, answer.cot))
    if found is None:
        return None
    return TraceView(
        id=answer.problem, prompt=answer.prompt, pieces=found.pieces, saliency=found.saliency, answer=answer.answer,
        gold=answer.gold, right=answer.right, reward=found.reward, loss_initial=found.loss_initial,
        loss_final=found.loss_final,
    )  # fmt: skip
