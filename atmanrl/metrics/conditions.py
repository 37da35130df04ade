"""What the values of a test depend on, and how reports speak of it: `Condition`. Without torch, as `columns`."""

from __future__ import annotations

from dataclasses import dataclass

from atmanrl.metrics.columns import Recorded
from atmanrl.tasks import DELIMITER


@dataclass(frozen=True)
class Condition(Recorded):
    """An entry of the `setting` of an evaluation as reports show and compare it. `{}` stands for its value.

    Example:
        `Condition("taggers", "words told apart by {}", must_agree=True, caption="Numbers and symbols: {}.")`

    Attributes:
        plural: says what differs between two tests: "different taggers".
        phrase: part of the line beneath a report's title; empty for none.
        must_agree: whether tests that differ in it cannot be compared at all; else a note tells that they differ.
        caption: a sentence beneath Table 1; empty for none.
        default: the value of a setting that does not name one; it needs no phrase.

    Raises:
        ValueError: a field is of the wrong type, or `plural` is empty.
    """

    plural: str
    phrase: str = ""
    must_agree: bool = False
    caption: str = ""
    default: str | None = None

    def __post_init__(self) -> None:
        texts = (self.plural, self.phrase, self.caption, self.default or "")
        if not all(isinstance(text, str) for text in texts) or not self.plural or not isinstance(self.must_agree, bool):
            raise ValueError(f"a condition needs texts, and true or false for must_agree, got {self!r}")

    def shown(self, value: object) -> str | None:
        """Return a value of the setting as a text: an object by its `class_path`; None where there is no value."""
        if value is None:
            return self.default
        return str(value["class_path"] if isinstance(value, dict) and "class_path" in value else value)


LEXICAL_RULES = "lexical rules"
"""What a setting calls the tagger that needs no pipeline."""

TAGGER = Condition("taggers", "words told apart by {}", must_agree=True, caption="Numbers, stop words and symbols: {}.")
SAMPLING = {
    "task": Condition("tasks", "task {}", must_agree=True),
    "samples": Condition("samples a problem", "{} samples a problem"),
    "delimiter": Condition("delimiters", "answers marked by {}", default=DELIMITER),
    "temperature": Condition("temperatures", "temperature {}"),
    "max_new_tokens": Condition("limits"),
}
"""What every evaluation depends on."""

UNRECORDED = {**SAMPLING, "tagger": TAGGER}
"""The conditions of evaluations that recorded none: older ones."""
