"""Rows that other tools have written, and how they become traces: GSM8K's data, chats, TRL's and lm-eval's logs.

A row in the schema of `traces` is taken as it is. Of any other, prompt, completion (or reasoning) and gold answer are found
by the names of its keys, or where the user says that they stand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from atmanrl.io.jsonl import RowError
from atmanrl.rollouts import lm_eval
from atmanrl.rollouts.boxed import BoxedSplitter
from atmanrl.rollouts.messages import are_messages, is_one_turn, read_messages, shown
from atmanrl.tasks.gsm8k import ANSWER_MARK, solution_and_gold

PROMPTS = ("prompt", "question", "problem", "query")
COMPLETIONS = ("completion", "response", "generation")
GOLDS = ("gold", "answer", "ground_truth", "solution", "target")
CHATS = ("messages", "conversations")
"""Keys under which data sets keep them, the likelier ones first."""

TOKENWISE = ("completion_ids", "logprobs", "saliency")
"""What a trace holds of its completion's tokens."""


@dataclass(frozen=True)
class Fields:
    """Where a row keeps what a trace needs; None is found by itself. Dots lead inwards: `doc.question`, `resps.0.0`.

    Args:
        prompt: the key of the user's turn, or of a chat's messages.
        completion: the key of the whole completion, with what marks its answer.
        cot: the key of the reasoning alone, in place of a completion.
        gold: the key of the gold answer: a text or a number; behind `####`, or in a box, if it has one.
    """

    prompt: str | None = None
    completion: str | None = None
    cot: str | None = None
    gold: str | None = None

    def __bool__(self) -> bool:
        """Return whether the user says anything."""
        return any(getattr(self, each.name) for each in fields(self))


class Source(NamedTuple):
    """A value, and where it stood: `Source("doc.question", "How many ...?")`."""

    key: str
    value: Any


@dataclass(frozen=True)
class Reading:
    """A row as a trace.

    Attributes:
        trace: in the schema of `traces`; `messages` holds a prompt of several turns.
        kind: what the row was taken for.
        sources: where its fields stood in the row; empty for a row that is a trace already.

    Example:
        `Reading({"prompt": "How many ...?", "cot": "48 / 2 = 24.", "gold": "24"}, "GSM8K's data", {"prompt": "question",
        "cot": "answer before ####", "gold": "answer behind ####"})`
    """

    trace: dict[str, Any]
    kind: str = "traces"
    sources: Mapping[str, str] = field(default_factory=dict)


def to_trace(row: dict[str, Any], named: Fields = Fields()) -> Reading:  # noqa: B008  it is frozen
    """Return a row as a trace; what it lacks is for `traces.read` to say.

    Args:
        row: of a file.
        named: where the user says that fields stand.

    Raises:
        RowError: a field is not where the user says, or holds no text.
    """
    if not named and _is_trace(row):
        texts: dict[str, Any] = {name: _number(row[name]) for name in ("gold", "answer") if name in row}
        return Reading({**{name: value for name, value in row.items() if name != "messages"}, **texts})
    kind, sources = _recognised(row)
    for each in fields(named):
        if key := getattr(named, each.name):
            sources[each.name] = Source(key, _at(row, key))
    if named.cot and not named.completion:
        sources.pop("completion", None)
    elif named.completion and not named.cot:
        sources.pop("cot", None)
    trace = {name: row[name] for name in ("problem_id", "delimiter") if row.get(name) is not None}
    if "prompt" in sources:
        trace |= _prompt(sources["prompt"])
    for name in ("completion", "cot"):
        if name in sources:
            trace[name] = _completion(sources[name])
    if "gold" in sources:
        trace["gold"], behind = _gold(sources["gold"].value)
        sources["gold"] = Source(sources["gold"].key + behind, None)
    return Reading(trace, kind, {name: source.key for name, source in sources.items()})


def _is_trace(row: Mapping[str, Any]) -> bool:
    """Whether a row is in the schema of `traces`, faulty or not: no other format has such a prompt."""
    foreign = row.get("prompt") is None or are_messages(row.get("prompt")) or are_messages(row.get("completion"))
    own = any(row.get(name) is not None for name in ("cot", "completion", "completion_ids"))
    return not foreign and own and ("gold" in row or "answer" in row) and not _is_trl(row)


def _is_trl(row: Mapping[str, Any]) -> bool:
    return "prompt" in row and "completion" in row and "step" in row and ("advantage" in row or "reward" in row)


def _recognised(row: Mapping[str, Any]) -> tuple[str, dict[str, Source]]:
    """What a row looks like, and where its fields stand."""
    if lm_eval.is_sample(row):
        return "lm-eval's samples", {name: Source(*at) for name, at in lm_eval.sources(row).items()}
    sources = {
        name: source for name, keys in (("prompt", PROMPTS), ("completion", COMPLETIONS), ("gold", GOLDS))
        if (source := _first(row, keys))
    }  # fmt: skip
    if row.get("cot") is not None and "completion" not in sources:
        sources["cot"] = Source("cot", row["cot"])
    chat = next((key for key in CHATS if are_messages(row.get(key))), None)
    if chat is not None:
        return "chats", sources | _chat(chat, row[chat])
    answer = row.get("answer")
    if not {"completion", "cot"} & sources.keys() and isinstance(answer, str) and ANSWER_MARK in answer:
        sources["cot"] = Source(f"answer before {ANSWER_MARK}", solution_and_gold(answer)[0])
        return "GSM8K's data", sources | {"gold": Source("answer", answer)}
    return "TRL's completions" if _is_trl(row) else "rows of other names", sources


def _chat(key: str, chat: list[Any]) -> dict[str, Source]:
    """A chat whose last message is the assistant's holds the completion, any other the prompt alone."""
    messages = read_messages(chat, key)
    if messages[-1]["role"] != "assistant":
        return {"prompt": Source(key, chat)}
    sources = {"completion": Source(f"{key}, the last one", messages[-1]["content"])}
    return sources | ({"prompt": Source(f"{key} before it", chat[:-1])} if len(chat) > 1 else {})


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> Source | None:
    return next((Source(key, row[key]) for key in keys if row.get(key) is not None), None)


def _at(row: Mapping[str, Any], key: str) -> Any:
    """The value at a key, which may lead inwards."""
    if key in row:
        value: Any = row[key]
    else:
        value = row
        for name in key.split("."):
            inner = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
                inner = value[int(name)]
            value = inner
    if value is None:
        raise RowError(f"nothing stands at the key {key!r}; {keys_of(row)}.")
    return value


def keys_of(row: Mapping[str, Any]) -> str:
    """Return the keys of a row for a message: `the row has the keys 'question', 'answer'`."""
    names = ", ".join(f"{name!a:.40}" for name in list(row)[:20])
    return f"the row has the key{'s' if len(row) > 1 else ''} {names}" if row else "the row is empty"


def _prompt(source: Source) -> dict[str, Any]:
    value = source.value
    if isinstance(value, str) and value.lstrip().startswith('[{"role"'):
        try:
            value = json.loads(value)  # a chat that lm-eval has put into a text
        except ValueError:
            return {"prompt": value}
    if not are_messages(value):
        return {"prompt": value}
    messages = read_messages(value, source.key)
    return {"prompt": shown(messages), **({} if is_one_turn(messages) else {"messages": messages})}


def _completion(source: Source) -> Any:
    if not are_messages(source.value):
        return source.value
    messages = read_messages(source.value, source.key)
    if len(messages) > 1:
        raise RowError(f"field {source.key!r} has {len(messages)} messages; a completion is one message.")
    return messages[0]["content"]


def _gold(value: Any) -> tuple[Any, str]:
    """A gold answer as a text, and which part of the value it is."""
    value = _number(value[0] if isinstance(value, list) and len(value) == 1 else value)
    if isinstance(value, str):
        if ANSWER_MARK in value:
            return solution_and_gold(value)[1], f" behind {ANSWER_MARK}"
        if place := BoxedSplitter().find(value):
            return place.answer, " in its box"
    return value, ""


def _number(value: Any) -> Any:
    """A number as a text; anything else as it is."""
    if type(value) is float and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if type(value) in (int, float) else value
