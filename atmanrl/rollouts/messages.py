"""Chats as data sets store them: lists of messages, under the names that are common for roles and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atmanrl.io.jsonl import RowError

Message = dict[str, str]
"""`{"role": "user", "content": "3 + 4?"}`, as chat templates take it."""

ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
"""Roles of other conventions, and what chat templates call them."""

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Where servers put the reasoning of an assistant's message, apart from its answer."""

THINK, END_THINK = "<think>", "</think>"
"""What reasoning models write around their reasoning."""


def are_messages(value: object) -> bool:
    """Return whether a value looks like a chat: a list of objects that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def read_messages(value: Sequence[Any], key: str) -> list[Message]:
    """Return a chat as chat templates take it.

    Args:
        value: `role` and `content` (text, or a list of parts with texts), or `from` and `value`. An assistant's reasoning
            that is stored apart from its content is put before it, between `<think>` and `</think>`.
        key: where it stands, for errors.

    Raises:
        RowError: a message has no role or no text.
    """
    return [_message(each, f"message {number} of field {key!r}") for number, each in enumerate(value, 1)]


def _message(message: Any, where: str) -> Message:
    role = message.get("role", message.get("from"))
    if not isinstance(role, str):
        raise RowError(f"{where} has no role.")
    content = _content(message.get("content", message.get("value")))
    if content is None:
        raise RowError(f"{where} has no text as its content.")
    role = ROLES.get(role, role)
    thoughts = next((t for name in REASONING if isinstance(t := message.get(name), str) and t.strip()), "")
    if role == "assistant" and thoughts and END_THINK not in content:
        content = f"{THINK}\n{thoughts.strip()}\n{END_THINK}\n\n{content}"
    return {"role": role, "content": content}


def _content(value: Any) -> str | None:
    """The text of a message; None where there is none, or anything but text."""
    if isinstance(value, list) and value:
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        texts = [part for part in parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(parts) else None
    return value if isinstance(value, str) else None


def shown(messages: Sequence[Message]) -> str:
    """Return a prompt's messages as one text to look at; a lone user's turn is its content."""
    if is_one_turn(messages):
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def is_one_turn(messages: Sequence[Message]) -> bool:
    """Return whether messages are a user's turn and no more."""
    return [message["role"] for message in messages] == ["user"]
