"""Figures 3 to 5: one problem answered by several policies, side by side."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from atmanrl.metrics.word_classes import WordClasses
from atmanrl.report.rollouts import StoredRollout, StoredSaliency
from atmanrl.views.trace_page import Span, TraceView, colour_scale, spans

TYPICAL = 3
"""Problems shown because they are typical: the paper's Figures 3 to 5."""

KnownSaliency = Mapping[tuple[str, str], StoredSaliency]
"""By problem and reasoning, as `rollouts.read_saliencies` returns it."""


@dataclass(frozen=True)
class Side:
    """One policy's rollout.

    Example:
        `Side("baseline", "7", True, 9, [("3", "number"), (" + ", "other")], [(" 3", 0.4, "0.120")],
        "saliency reward 0.130")`

    Attributes:
        name: the run's.
        answer: None without an answer.
        correct: whether the answer is right.
        length: of the reasoning, in the policy's tokens.
        words: the reasoning cut into (text, class), see `WordClasses.spans`.
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
    """One problem with a rollout of each policy.

    Example: `Comparison("sums/3", "What is 1 + 2?", "3", [ours, baseline], typical=True)`, two of type `Side`.

    Attributes:
        problem: its id.
        prompt: the user's turn.
        gold: the right answer.
        sides: a rollout of each run.
        typical: whether it was chosen as typical, not drawn at random (see `compare`).
    """

    problem: str
    prompt: str
    gold: str
    sides: list[Side]
    typical: bool


@dataclass(frozen=True)
class Comparisons:
    """Some problems, and the saliencies of no colour and of full colour; None where no saliency is known.

    Example: `Comparisons([comparison], scale=0.3)`, of type `Comparison`.
    """

    items: list[Comparison]
    scale: float | None


def compare(
    rollouts: Mapping[str, Sequence[StoredRollout]],
    saliencies: Mapping[str, KnownSaliency],
    words: WordClasses | None,
    count: int,
    seed: int = 0,
) -> Comparisons:
    """Choose problems that all the runs were tested on: first `TYPICAL` typical ones, then some drawn at random.

    Typical are the problems that every run answers rightly in about its own mean length (see `_typical`): they show what
    the table's values look like. In both kinds, problems whose saliency is known in more runs come first.

    Args:
        rollouts: of each run's test.
        saliencies: of each run, where they are known.
        words: cuts a reasoning by class; None where the tagger is missing, the texts then stand whole.
        count: problems, at most.
        seed: of the draw.
    """
    typical = _typical(rollouts, saliencies)[: min(count, TYPICAL)]
    taken = {next(iter(sides.values())).problem for sides in typical}
    chosen = typical + _draw(rollouts, saliencies, taken, count - len(typical), seed)
    views = [_view(rollout, saliencies.get(name, {})) for sides in chosen for name, rollout in sides.items()]
    known = [view for view in views if view]
    scale = colour_scale(known) if known else None
    items = []
    for place, sides in enumerate(chosen):
        first = next(iter(sides.values()))
        shown = [_side(name, rollout, saliencies.get(name, {}), words, scale) for name, rollout in sides.items()]
        items.append(Comparison(first.problem, first.prompt, first.gold, shown, place < len(typical)))
    return Comparisons(items, scale)


def _typical(
    rollouts: Mapping[str, Sequence[StoredRollout]], saliencies: Mapping[str, KnownSaliency]
) -> list[dict[str, StoredRollout]]:
    """Problems that every run answers rightly, the most typical first, with each run's most typical right rollout.

    A rollout is the more typical the less its length differs from its run's mean, as a ratio; a problem as much as the
    least typical of its rollouts. Rollouts whose saliency is known go before others.
    """
    best: dict[str, dict[str, tuple[bool, float, StoredRollout]]] = {}
    for name, stored in rollouts.items():
        known, mean = saliencies.get(name, {}), sum(r.length for r in stored) / max(len(stored), 1)
        best[name] = {}
        for rollout in stored:
            if rollout.correct and rollout.length and mean:
                unknown = (rollout.problem, rollout.cot) not in known
                ranked = unknown, abs(math.log(rollout.length / mean)), rollout
                before = best[name].get(rollout.problem, ranked)
                best[name][rollout.problem] = min(ranked, before, key=lambda r: r[:2])

    def order(problem: str) -> tuple[int, float, str]:
        sides = [of[problem] for of in best.values()]
        return sum(unknown for unknown, _, _ in sides), max(distance for _, distance, _ in sides), problem

    return [{name: of[problem][2] for name, of in best.items()} for problem in sorted(_common(best), key=order)]


def _draw(
    rollouts: Mapping[str, Sequence[StoredRollout]],
    saliencies: Mapping[str, KnownSaliency],
    taken: Set[str],
    count: int,
    seed: int,
) -> list[dict[str, StoredRollout]]:
    """Problems at random, none of those taken, with a rollout of each run: the first with saliency, else the first."""
    firsts: dict[str, dict[str, tuple[bool, StoredRollout]]] = {name: {} for name in rollouts}
    for name, stored in rollouts.items():
        known = saliencies.get(name, {})
        for rollout in stored:
            unknown = (rollout.problem, rollout.cot) not in known
            before = firsts[name].get(rollout.problem)
            if before is None or unknown < before[0]:
                firsts[name][rollout.problem] = unknown, rollout
    common = sorted(_common(firsts) - taken)
    random.Random(seed).shuffle(common)
    common.sort(key=lambda problem: sum(of[problem][0] for of in firsts.values()))
    return [{name: of[problem][1] for name, of in firsts.items()} for problem in common[:count]]


def _common(of_runs: Mapping[str, Mapping[str, object]]) -> set[str]:
    """The problems that all the runs have."""
    return set.intersection(*map(set, of_runs.values())) if of_runs else set()


def _side(
    name: str,
    rollout: StoredRollout,
    known: KnownSaliency,
    words: WordClasses | None,
    scale: float | None,
) -> Side:
    view = _view(rollout, known)
    text = rollout.cot.strip()
    note = ""
    if view and view.reward is not None:
        note = f"saliency reward {view.reward:.3f}"
    if view and view.loss_initial is not None and view.loss_final is not None:
        note += f"{', ' if note else ''}answer loss {view.loss_initial:.3f} → {view.loss_final:.3f} nats"
    return Side(
        name, rollout.answer, rollout.correct, rollout.length, words.spans(text) if words else [(text, "other")],
        _stripped(spans(view, scale)) if view and scale is not None else [], note,
    )  # fmt: skip


def _view(rollout: StoredRollout, known: KnownSaliency) -> TraceView | None:
    stored = known.get((rollout.problem, rollout.cot))
    if stored is None:
        return None
    return TraceView(
        id=rollout.problem, prompt=rollout.prompt, token_texts=stored.token_texts, saliency=stored.saliency,
        answer=rollout.answer, gold=rollout.gold, correct=rollout.correct, reward=stored.reward,
        loss_initial=stored.loss_initial, loss_final=stored.loss_final,
    )  # fmt: skip


def _stripped(tokens: list[Span]) -> list[Span]:
    """Without white space at both ends, which would only indent the text."""
    inked = [place for place, (text, _, _) in enumerate(tokens) if text.strip()]
    if not inked:
        return []
    kept = tokens[inked[0] : inked[-1] + 1]
    for place, strip in ((0, str.lstrip), (-1, str.rstrip)):
        text, share, tip = kept[place]
        kept[place] = strip(text), share, tip
    return kept
