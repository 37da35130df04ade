"""Splitting a completion into reasoning and answer: the plug point `Splitter`, and the delimiter as its default."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io.jsonl import is_text
from atmanrl.models.tokenizing import text_ids
from atmanrl.rollouts.offsets import offsets, special_ids
from atmanrl.tasks.base import DELIMITER, after_delimiter


@dataclass(frozen=True)
class Place:
    """Where a text's answer stands.

    Attributes:
        start: number of characters before the opening, which is the end of the reasoning.
        end: number of characters before the answer, which is the end of the opening.
        answer: the answer's text.

    Example:
        Of `3 + 4 = 7. ##### 7`: `Place(start=11, end=16, answer="7")`.
    """

    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class Parts:
    """A completion in its parts.

    Attributes:
        text: the whole completion, without special tokens (but for those that the delimiter consists of).
        cot: the reasoning: all before the delimiter, or the whole text where there is none.
        answer: what follows the delimiter, stripped; None without a delimiter.
        cot_length: number of tokens that lie wholly before the delimiter; where there is none, of all tokens but the
            special ones at the end.
        straddle: the end of the reasoning, where it shares a token with the delimiter, to which that token belongs.
        opening: the delimiter as it was written; where there is none, as it should have been.
        splitter: what split the completion.

    Example:
        `Parts(text="3 + 4 = 7. ##### 7", cot="3 + 4 = 7. ", answer="7", cot_length=8)`
    """

    text: str
    cot: str
    answer: str | None
    cot_length: int
    straddle: str = ""
    opening: str = DELIMITER
    splitter: Splitter = field(default_factory=lambda: DelimiterSplitter(), compare=False, repr=False)

    @property
    def has_reasoning(self) -> bool:
        """Whether there is a reasoning before a delimiter."""
        return self.answer is not None and self.cot_length > 0 and bool(self.cot.strip())


class Splitter(ABC):
    r"""Tells the reasoning of a completion from its answer. Name your own by its class path in `data.delimiter`.

    A subclass needs `opening` and `find`, no more: tokens, prompts, stored traces and the probe follow from them.

    Attributes:
        opening: what a policy writes between its reasoning and its answer, such as `#####` or `\boxed{`.
        gap: what stands between opening and answer in a text that is put together.
        closing: what stands behind the answer there; it is no part of the answer.
    """

    opening: str
    gap: str = " "
    closing: str = ""

    @abstractmethod
    def find(self, text: str) -> Place | None:
        """Find the answer in a completion's text; None where there is none."""

    def instruction(self, answer: str, example: str) -> str:
        """Tell a policy to mark its answer.

        Args:
            answer: what is asked for, in words: `the final answer`.
            example: of an answer: `42`.
        """
        return f"Then write {answer} alone as in this example: {self.opening}{self.gap}{example}{self.closing}"

    def split(self, tokenizer: Any, ids: Sequence[int]) -> Parts:
        """Split token ids, by character offsets.

        This holds for any tokenizer: also where a token straddles the opening or a character is made of several tokens.
        """
        known = offsets(tokenizer, ids, self.visible(tokenizer))
        text = known.text
        place = self.find(text)
        if place is None:
            special, length = special_ids(tokenizer), len(ids)
            while length and ids[length - 1] in special:
                length -= 1
            return Parts(text, text, None, length, opening=self.opening, splitter=self)
        start, end = place.start, place.end
        cot_length = bisect_right(known.ends, start) - 1
        while not known.whole[cot_length]:
            cot_length -= 1
        straddle = text[known.ends[cot_length] : start]
        return Parts(text, text[:start], place.answer, cot_length, straddle, text[start:end], self)

    def join(self, cot: str, answer: str, separator: str = "\n") -> str:
        """Put a completion together, `separator` between its reasoning and the opening."""
        return f"{cot}{separator}{self.opening}{self.gap}{answer}{self.closing}"

    def cuts(self, cot: str) -> bool:
        """Return whether a reasoning, joined with an answer, would be split before its end, as it holds an opening."""
        cot = cot.rstrip()
        place = self.find(self.join(cot, "?"))
        return place is not None and place.start < len(cot)

    def check_stop(self, stop: Sequence[str]) -> None:
        """Refuse stop strings that the opening holds itself.

        Raises:
            UserError: it holds one.
        """
        for string in stop:
            if string in self.opening:
                raise UserError(
                    f"data.stop holds {string!r}, which would end completions before {self.opening} and an answer."
                )

    def visible(self, tokenizer: Any) -> frozenset[int]:
        """Return the ids of the special tokens that the opening consists of, which texts must therefore show."""
        names = {i: tokenizer.convert_ids_to_tokens(i) for i in special_ids(tokenizer)}
        return frozenset(i for i, name in names.items() if name and (name in self.opening or self.opening in name))

    def text_ids(self, tokenizer: Any, text: str) -> list[int]:
        """Return the token ids of a text within a sequence; only `visible` special tokens are read from it."""
        return text_ids(tokenizer, text, self.visible(tokenizer))

    @property
    def setting(self) -> str | dict[str, Any]:
        """What names the splitter in `data.delimiter`, in a stored trace and in the metrics of an evaluation."""
        module = type(self).__module__
        own = "" if module.partition(".")[0] == __name__.partition(".")[0] else f"{module}."
        return {"class_path": f"{own}{type(self).__qualname__}"}

    @property
    def noted(self) -> dict[str, Any]:
        """`setting` as the entry `delimiter` of a JSON object; empty for the default, which needs no note."""
        return {} if self.setting == DELIMITER else {"delimiter": self.setting}


class DelimiterSplitter(Splitter):
    """The answer is all that follows the first delimiter.

    Args:
        delimiter: any text; also the name of a special token, such as `</think>`.

    Raises:
        UserError: the delimiter is empty.
    """

    def __init__(self, delimiter: str = DELIMITER) -> None:
        if not delimiter or not is_text(delimiter):
            raise UserError(
                f"delimiter is {delimiter!a:.80} (in YAML, data.delimiter); give a text, such as {DELIMITER}."
            )
        self.opening = delimiter

    def find(self, text: str) -> Place | None:
        """Find the first delimiter, and all that follows it."""
        start = text.find(self.opening)
        end = start + len(self.opening)
        return None if start < 0 else Place(start, end, text[end:].strip())

    def instruction(self, answer: str, example: str) -> str:
        """Ask for the delimiter and the answer."""
        return after_delimiter(self.opening, answer, example)

    @property
    def setting(self) -> str:
        """The delimiter itself."""
        return self.opening


DEFAULT = DelimiterSplitter()


def splitter_of(delimiter: str | Splitter) -> Splitter:
    """Return the splitter that `data.delimiter` names: a text is a delimiter.

    Raises:
        UserError: the text is empty, or the name of a class that could not be imported, and so was left as a text.
    """
    if isinstance(delimiter, str) and re.fullmatch(r"([A-Za-z_]\w*\.)+[A-Za-z_]\w*|\w+Splitter", delimiter):
        raise UserError(
            f"delimiter names {delimiter} (in YAML, data.delimiter), but no Splitter of that name can be imported; mend the "
            "class path, or "
            f"give {{class_path: DelimiterSplitter, init_args: {{delimiter: {delimiter}}}}} where it is a text."
        )
    return DelimiterSplitter(delimiter) if isinstance(delimiter, str) else delimiter


def split(tokenizer: Any, ids: Sequence[int], delimiter: str | Splitter = DELIMITER) -> Parts:
    """Split token ids into reasoning and answer, by a delimiter or another splitter."""
    return splitter_of(delimiter).split(tokenizer, ids)
