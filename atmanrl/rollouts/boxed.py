r"""Answers in `\boxed{...}`, as mathematical models write them."""

from __future__ import annotations

from atmanrl.rollouts.split import Place, Splitter


class BoxedSplitter(Splitter):
    r"""The answer is what stands in the last `\boxed{...}`, and the reasoning all before it.

    Braces within the box count in pairs, escaped ones (`\{`) not at all. A box that is never closed holds no answer. What
    follows the box, such as a full stop, belongs to neither part.
    """

    opening = r"\boxed{"
    gap = ""
    closing = "}"

    def find(self, text: str) -> Place | None:
        """Find the last box and what it holds."""
        start = text.rfind(self.opening)
        end = start + len(self.opening)
        closed = -1 if start < 0 else closing_brace(text, end)
        return None if closed < 0 else Place(start, end, text[end:closed].strip())

    def instruction(self, answer: str, example: str) -> str:
        """Ask for a box."""
        return f"Then write {answer} alone in \\boxed{{}}, for example: \\boxed{{{example}}}"


def closing_brace(text: str, begin: int) -> int:
    """Return the place of the brace that closes the one before `begin`; -1 if there is none."""
    depth, place = 1, begin
    while place < len(text):
        if text[place] == "\\":
            place += 1  # what it escapes is no brace
        elif text[place] in "{}":
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place
        place += 1
    return -1
