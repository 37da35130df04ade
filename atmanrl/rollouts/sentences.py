"""Answers in a sentence, `The answer is 18.`, as models write them that nobody told to mark theirs."""

from __future__ import annotations

import re

from atmanrl.rollouts.split import Place, Splitter

_BOLD = r"(?:\*\*|__)?"
_WORDS = r"\b(?:(?:the|my)\s{1,3})?(?:(?:final|correct)\s{1,3})?answer"
_OPENING = re.compile(
    rf"{_BOLD}{_WORDS}(?:\s{{1,3}}is\b|(?={_BOLD}\s{{0,3}}:)){_BOLD}(?:\s{{0,3}}:)?{_BOLD}", re.IGNORECASE
)


class SentenceSplitter(Splitter):
    """The answer is what follows the last `the answer is` or `answer:` on its line, and the reasoning all before it.

    `The final answer is`, `**Answer:**` and the like count, in any case. A full stop at the end is no part of the answer.
    """

    opening = "The answer is"
    closing = "."

    def find(self, text: str) -> Place | None:
        """Find the last such words that something follows."""
        for match in reversed(list(_OPENING.finditer(text))):
            if rest := text[match.end() :].strip():
                return Place(match.start(), match.end(), rest.split("\n", 1)[0].strip().removesuffix("."))
        return None
