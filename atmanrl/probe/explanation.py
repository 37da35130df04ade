"""`Explanation`: what `explain` returns, and the ways in which it is shown and stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atmanrl.io.files import atomic_write, shown_path
from atmanrl.io.terminal import output_encoding
from atmanrl.probe.reference_check import ReferenceCheck
from atmanrl.views import figure1, trace_page, trace_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.text import Text


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """How much each token of a chain of thought matters to the right answer.

    It is shown by `print` (plain), `rich.print` (coloured), as the last line of a notebook's cell, by `to_html` and
    `figure`.

    Attributes:
        model: name of the model.
        prompt: the user's turn; answer: the answer that was scored, which is the gold one unless `has_gold` is False.
        tokens: the T reasoning tokens as texts; joined they are the chain of thought, with the white space that stands
            before the delimiter. A character of several byte tokens is the text of the last one, the others are empty.
        saliency: one value for each of them, in the orientation of the settings.
        rows: labels of the mask's R rows: the reasoning, the delimiter and the answer, token by token.
        mask: H after optimization, `[R, T]`, on the CPU, 0 where there is no entry.
        entries: where there is one, `[R, T]` boolean.
        loss_initial: of the gold answer in nats a token, with the reasoning suppressed by the initial mask.
        loss_final: the same under the optimized mask.
        reward: the saliency reward (Eq. 3).
        losses: (step, loss) for each gradient on the path, in order.
        gradients: how many were taken; seconds: how long all of it took.
        settings: the options of the probe, JSON-ready.
        completion: all that the model wrote; None where the chain of thought was given.
        own_answer: the model's own answer in it; None where nothing marks one.
        has_gold: whether `answer` is the gold one, and not the model's own.
        check: agreement with the paper's solver, where that was asked for.

    Example:
        `Explanation(model="gpt2", prompt="3 + 4?", answer="7", tokens=(" 3", " +", " 4"), saliency=(0.31, 0.02, 0.29),
        rows=(" 3", " +", " 4", " #####", " 7"), mask=tensor([...]), entries=tensor([...]), loss_initial=4.1,
        loss_final=0.2, reward=0.2, losses=((0, 4.1), (12, 2.9)), gradients=2, seconds=0.3, settings={"solver": "paper"})`
    """

    model: str
    prompt: str
    answer: str
    tokens: tuple[str, ...]
    saliency: tuple[float, ...]
    rows: tuple[str, ...]
    mask: Tensor
    entries: Tensor
    loss_initial: float
    loss_final: float
    reward: float
    losses: tuple[tuple[int, float], ...]
    gradients: int
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)
    completion: str | None = None
    own_answer: str | None = None
    has_gold: bool = True
    check: ReferenceCheck | None = None

    @property
    def cot(self) -> str:
        """The chain of thought."""
        return "".join(self.tokens)

    @property
    def view(self) -> trace_page.TraceView:
        """What a page of traces shows of it. Nobody has judged an answer of the model's, so none is correct or wrong."""
        return trace_page.TraceView(
            id=shown_path(self.model), prompt=self.prompt, token_texts=list(self.tokens), saliency=list(self.saliency),
            answer=self.own_answer, gold=self.answer if self.has_gold else None, correct=None, reward=self.reward,
            loss_initial=self.loss_initial, loss_final=self.loss_final,
            note="" if self.check is None else str(self.check),
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Explanation({len(self.tokens)} tokens, reward={self.reward:.3f}, model={self.model!r})"

    def __str__(self) -> str:
        return trace_text.plain(self.view, output_encoding())

    def __rich__(self) -> Text:
        return trace_text.coloured(self.view, output_encoding())

    def _repr_html_(self) -> str:
        return trace_page.fragment(self.view)

    def to_html(self, path: str | Path) -> None:
        """Write an HTML page that needs no other file and no network.

        Raises:
            OSError: the file cannot be written; an older one is then left as it was.
        """
        with atomic_write(Path(path)) as file:
            file.write(trace_page.page(f"Saliency under {shown_path(self.model)}", [self.view]))

    def to_json(self, mask: bool = False) -> dict[str, Any]:
        """Return all of it as one JSON object, with the names of a stored trace, so that `atmanrl probe` reads it too.

        Args:
            mask: whether to include the mask: R lists of T numbers, with null where there is no entry.
        """
        stored = {
            "prompt": self.prompt, "cot": self.cot, "gold": self.answer, "rewards": {"saliency": self.reward},
            "saliency": list(self.saliency), "tokens": list(self.tokens), "rows": list(self.rows),
            "loss_initial": self.loss_initial, "loss_final": self.loss_final, "losses": [list(p) for p in self.losses],
            "gradients": self.gradients, "seconds": self.seconds, "model": self.model, "settings": self.settings,
            **{name: value for name, value in self.settings.items() if name == "delimiter"},  # absent by default
            **({} if self.own_answer is None else {"answer": self.own_answer}),
            **({} if self.check is None else {"check": self.check.as_dict()}),
        }  # fmt: skip
        if mask:
            pairs = zip(self.mask.tolist(), self.entries.tolist(), strict=True)
            stored["mask"] = [[v if there else None for v, there in zip(*pair, strict=True)] for pair in pairs]
        return stored

    def save(self, path: str | Path, mask: bool = True) -> None:
        """Write `to_json` into a file.

        Raises:
            OSError: the file cannot be written; an older one is then left as it was.
        """
        with atomic_write(Path(path)) as file:
            # escaped, so that a lone surrogate in a text can be written too
            file.write(json.dumps(self.to_json(mask), allow_nan=False) + "\n")

    def figure(self, path: str | Path | None = None, title: str | None = None) -> Figure:
        """Draw Figure 1: the loss over the steps, the mask before and after, each token's saliency.

        Args:
            path: a file to write it into too (.png, .pdf, .svg).
            title: text above the panels; None names the model, the reward and the gold answer.

        Raises:
            UserError: matplotlib is not installed.
        """
        mask = self.mask.double().masked_fill(~self.entries, torch.nan).numpy()
        if title is None:
            title = f"{self.model}: saliency reward {self.reward:.3f}, gold answer {self.answer}"
        steps = self.settings.get("steps")
        losses = self.losses if steps is None else (*self.losses, (steps, self.loss_final))
        figure = figure1.draw(
            mask, self.saliency, losses, self.rows, init_value=self.settings["init_value"], title=title
        )
        if path is not None:
            figure1.save(figure, Path(path))
        return figure
