"""The marks of a chat template, and prompts that carry them already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

TemplateUse = Literal["auto", "wrap", "written", "none"]
"""What becomes of a prompt. `wrap`: it is a user's turn, and is put into the chat template. `written`: it carries the
template's marks, or whatever the model shall read, and special tokens are read from it by their names. `none`: it is plain
text. `auto`: as written where all of the template's marks are there, else wrapped."""

QUESTION = "\u241eQ\u241e"
"""A user's turn that no template writes by itself."""

COMMON = re.compile(
    r"<\|(?:im_start|start_header_id|user|system|assistant|begin_of_text)\|>|<start_of_turn>|\[INST\]|<\uff5cUser\uff5c>"
)
"""What chat templates that are widely used begin a turn with."""


@dataclass(frozen=True)
class ChatMarks:
    r"""What a chat template writes around a user's turn.

    Attributes:
        opening: the first mark, without the beginning of the sequence.
        asking: what stands between the user's turn and the assistant's.
        names: the special tokens among all that is written.
        bos: the beginning of the sequence, empty where the template writes none.

    Example:
        ChatML: `ChatMarks("<|im_start|>", "<|im_end|>\n<|im_start|>assistant", ("<|im_start|>", "<|im_end|>"), "")`
    """

    opening: str
    asking: str
    names: tuple[str, ...]
    bos: str

    def around(self, text: str) -> bool:
        """Return whether a text carries all of the marks: it begins as a chat does, and asks for the assistant's turn."""
        begin = text.lstrip().removeprefix(self.bos).lstrip()
        return bool(self.opening) and begin.startswith(self.opening) and bool(self.asking) and self.asking in begin


def chat_marks(tokenizer: Any, template: str | None, variables: dict[str, Any]) -> ChatMarks | None:
    """Return the marks of a tokenizer's chat template; None where there is no template, or it leaves the question out."""
    if template is None:
        return None
    turn = [{"role": "user", "content": QUESTION}]
    text: str = tokenizer.apply_chat_template(
        turn, chat_template=template, tokenize=False, add_generation_prompt=True, **variables
    )
    before, question, after = text.partition(QUESTION)
    if not question:
        return None
    special = {*tokenizer.all_special_tokens, *(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special)}
    bos = tokenizer.bos_token or ""
    bos = bos if bos and before.startswith(bos) else ""
    before = before.removeprefix(bos).strip()
    names = tuple(sorted((name for name in special if name in before + after), key=len, reverse=True))
    opening = next((name for name in names if before.startswith(name)), before)
    return ChatMarks(opening, after.strip(), names, bos)


def first_mark(text: str, marks: ChatMarks | None) -> str | None:
    """Return a chat template's mark within a text: this template's, or a common one that the text begins with."""
    if marks is not None and (name := next((name for name in marks.names if name in text), None)):
        return name
    match = COMMON.match(text.lstrip())
    return match[0] if match else None
