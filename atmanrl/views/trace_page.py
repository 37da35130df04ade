"""A page of traces: each reasoning coloured by its saliency, as one HTML file that needs no other.

Nothing here imports torch, so that `atmanrl.report` starts quickly. Every text is escaped by the template, and the page's
content security policy forbids it to load anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from atmanrl.errors import UserError
from atmanrl.io import escape


@dataclass(frozen=True)
class TraceView:
    """What a page shows of one trace.

    Attributes:
        id: the problem's name.
        prompt: the user's turn.
        token_texts: the reasoning, cut at its tokens; joined they are its text (see `atmanrl.rollouts.token_texts`).
        saliency: one value for each token, or None where there is none.
        answer: what the policy answered, None without an answer; gold: the gold answer, None where nobody knows it.
        correct: whether the answer is correct, None if nobody judged it.
        reward: the saliency reward, None (or NaN) where it abstained.
        loss_initial, loss_final: of the gold answer in nats, before and after the mask was fitted.
        note: a line shown under the trace.

    Example:
        `TraceView(id="gsm8k/7", prompt="3 + 4?", token_texts=[" 3", " +", " 4"], saliency=[0.31, 0.02, 0.29], answer="7",
        gold="7", correct=True, reward=0.2, loss_initial=4.1, loss_final=0.2, note="line 8, 28 gradients")`
    """

    id: str
    prompt: str
    token_texts: list[str]
    saliency: list[float] | None
    answer: str | None
    gold: str | None
    correct: bool | None
    reward: float | None
    loss_initial: float | None
    loss_final: float | None
    note: str = ""


Span = tuple[str, float, str]
"""A text, its share of full colour from -1 to 1, and its tooltip (empty without a saliency): `(" 4", 0.82, "0.290")`."""


def page(title: str, items: Iterable[TraceView], intro: str = "") -> str:
    """Return an HTML document with one card for each trace, to be sorted and filtered in the browser.

    One colour scale holds for the entire page, so that traces can be compared.

    Args:
        title: of the page.
        items: the traces, in their first order.
        intro: a line of plain text beneath the title.

    Raises:
        UserError: a trace has not one saliency for each token.
    """
    views = list(items)
    scale = colour_scale(views)
    cards = [_card(view, order, scale) for order, view in enumerate(views)]
    html = template("trace_page.html.jinja").render(title=title, intro=intro, views=cards, full=f"{scale:.3f}")
    return str(html).lstrip()


def fragment(item: TraceView) -> str:
    """Return one trace as a fragment of HTML with its own style, for a notebook.

    Raises:
        UserError: the trace has not one saliency for each token.
    """
    scale = colour_scale([item])
    macros: Any = template("trace_card.html.jinja").module
    legend = f"{macros.legend(f'{scale:.3f}')} {macros.meaning()}"
    card = macros.card(_card(item, 0, scale))
    legend = f'<div class="atmanrl-note">{legend}</div>'
    # a notebook may be dark where the browser is not: the card's own ground goes beneath all of it
    page = f'{macros.style()}<div class="atmanrl" style="background: var(--card)">{card}{legend}</div>'
    return page.lstrip()


def colour_scale(items: Iterable[TraceView]) -> float:
    """Return the size of a saliency that gets full colour: the 99th percentile of their sizes, 0 without any.

    0 has no colour, as in Figure 1: red above, blue below. A few tokens go much further than all others, and would leave
    those without colour.
    """
    sizes = sorted(abs(v) for item in items for v in item.saliency or () if math.isfinite(v))
    return sizes[round(0.99 * (len(sizes) - 1))] if sizes else 0.0


def shares(saliency: Sequence[float], full: float) -> list[float]:
    """Return saliencies as shares of full colour, from -1 to 1; 0 where one is not finite or `full` is 0."""
    if full <= 0:
        return [0.0] * len(saliency)
    return [min(1.0, max(-1.0, v / full)) if math.isfinite(v) else 0.0 for v in saliency]


def spans(view: TraceView, full: float) -> list[Span]:
    """Return the texts of a reasoning with colour and tooltip; the tokens of one character are merged, with their mean.

    Raises:
        UserError: there is not one saliency for each token.
    """
    if view.saliency is None:
        return [("".join(view.token_texts), 0.0, "")]
    if len(view.saliency) != len(view.token_texts):
        raise UserError(
            f"{view.id}: {len(view.saliency)} saliencies for {len(view.token_texts)} tokens; "
            "they come from another tokenizer."
        )
    coloured: list[Span] = []
    together: list[float] = []
    for text, value in zip(view.token_texts, view.saliency, strict=True):
        together.append(value)
        if text:
            mean = sum(together) / len(together)
            tip = f"{mean:.3f}" if len(together) == 1 else f"{mean:.3f}, mean of {len(together)} tokens"
            coloured.append((text, round(shares([mean], full)[0], 3), tip))
            together = []
    return coloured


def _card(view: TraceView, order: int, scale: float) -> dict[str, Any]:
    """Return the values of one card, as the template shows them."""
    before, after = _shown(view.loss_initial), _shown(view.loss_final)
    gain = ""
    if before and after and view.loss_initial is not None and view.loss_final is not None:
        gain = _shown(view.loss_initial - view.loss_final)
    return {
        "id": view.id, "order": order, "prompt": view.prompt, "spans": spans(view, scale), "length": len(view.token_texts),
        "answer": view.answer, "gold": view.gold, "note": view.note, "reward": _shown(view.reward), "gain": gain,
        "correct": {None: "", True: "right", False: "wrong"}[view.correct],
        "losses": f"{before} → {after}" if before and after else "",
    }  # fmt: skip


def _shown(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"


@cache
def template(name: str) -> Any:
    """Return a template of this folder; every text put into it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_shown_safely,
    )  # fmt: skip
    return environment.get_template(name)


def _shown_safely(value: Any) -> Any:
    """Escape every text that a template puts out, except for markup of its own."""
    return escape.html(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
