"""A reasoning cut into words by class, by the tagger that a test's composition was counted with. Loads spaCy on use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atmanrl.metrics.conditions import LEXICAL_RULES

CLASSES = ("number", "symbol", "stop", "other")
"""The classes that a page colours; `other` has no colour, and white space belongs to it."""


class WordClasses:
    """A tagger, built at its first use.

    Args:
        pipeline: as in `atmanrl.metrics.tagger.build_tagger`; None for the lexical rules.
    """

    def __init__(self, pipeline: str | None = None) -> None:
        self.pipeline = pipeline
        self._tagger: Any = None

    @classmethod
    def of(cls, settings: Iterable[Mapping[str, object]]) -> WordClasses:
        """Take the tagger that the settings of evaluations name; the lexical rules where none does."""
        names = (str(setting["tagger"]) for setting in settings if setting.get("tagger"))
        return cls(next((name for name in names if name != LEXICAL_RULES), None))

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

    def spans(self, text: str) -> list[tuple[str, str]]:
        """Cut a text into spans with a class each, one of `CLASSES`; joined they are the text.

        Raises:
            PipelineError: the pipeline cannot be loaded.
        """
        from atmanrl.metrics.tagger import TokenClass, classify

        names = {TokenClass.NUMBER: "number", TokenClass.SYMBOL: "symbol", TokenClass.STOP_WORD: "stop"}
        doc = self.tagger(text)
        spans: list[tuple[str, str]] = []
        for token, kind in zip(doc, classify(doc).tolist(), strict=True):
            for part, name in ((token.text, names.get(kind, "other")), (token.whitespace_, "other")):
                if spans and name == "other" == spans[-1][1]:
                    spans[-1] = (spans[-1][0] + part, name)
                elif part:
                    spans.append((part, name))
        return spans
