"""The words of a reasoning by class, counted and marked by the tagger that the run's test used. Loads spaCy on use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CLASSES = ("number", "symbol", "stop", "other")
"""The classes that a page colours; `other` has no colour, and white space belongs to it."""


def spare_torch() -> None:
    """Import spaCy without the torch that it takes along where it finds one: seconds for nothing.

    For a process of its own, as a command is: in it spaCy's own torch layers stay unknown afterwards. Nothing happens
    where torch or spaCy is loaded already.
    """
    if "torch" in sys.modules or "spacy" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way of saying that an import fails
    try:
        import spacy  # noqa: F401
    finally:
        del sys.modules["torch"]


class Words:
    """A tagger, built at its first use.

    Args:
        pipeline: as in `atmanrl.metrics.tagger.build_tagger`; None for the lexical rules.
    """

    def __init__(self, pipeline: str | None = None) -> None:
        self.pipeline = pipeline
        self._tagger: Any = None

    @property
    def tagger(self) -> Any:
        """The spaCy pipeline.

        Raises:
            PipelineError: it cannot be loaded.
        """
        if self._tagger is None:
            from atmanrl.metrics.tagger import build_tagger

            self._tagger = build_tagger(self.pipeline)
        return self._tagger

    def counts(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens (white space left out), numbers, stop words and symbols of each text, shape [texts, 4].

        Raises:
            PipelineError: the pipeline cannot be loaded.
        """
        from atmanrl.metrics.tagger import TokenClass, classify

        found = np.zeros((len(texts), 4), dtype=np.int64)
        for row, doc in zip(found, self.tagger.pipe(texts, batch_size=64), strict=True):
            of = np.bincount(classify(doc), minlength=len(TokenClass))
            row[:] = (
                of.sum() - of[TokenClass.SPACE], of[TokenClass.NUMBER], of[TokenClass.STOP_WORD], of[TokenClass.SYMBOL],
            )  # fmt: skip
        return found

    def spans(self, text: str) -> list[tuple[str, str]]:
        """The text cut into pieces with a class each, one of `CLASSES`; joined they are the text.

        Raises:
            PipelineError: the pipeline cannot be loaded.
        """
        from atmanrl.metrics.tagger import TokenClass, classify

        names = {TokenClass.NUMBER: "number", TokenClass.SYMBOL: "symbol", TokenClass.STOP_WORD: "stop"}
        doc = self.tagger(text)
        found: list[tuple[str, str]] = []
        for token, kind in zip(doc, classify(doc).tolist(), strict=True):
            pieces = [(token.text, names.get(kind, "other")), (token.whitespace_, "other")]
            for piece, name in pieces:
                if found and name == "other" == found[-1][1]:
                    found[-1] = (found[-1][0] + piece, name)
                elif piece:
                    found.append((piece, name))
        return found
