"""Token ids of texts. What a text says is text: a special token's name within it never becomes that token."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import compress
from typing import Any

from jinja2 import TemplateError

from atmanrl.models.chat_marks import ChatMarks, TemplateUse, chat_marks, first_mark
from atmanrl.models.errors import PolicyError
from atmanrl.notes import say

RESERVED = (
    "conversation", "messages", "tokenize", "add_generation_prompt", "return_dict", "continue_final_message",
    "return_tensors", "padding", "truncation", "max_length", "tokenizer_kwargs", "return_assistant_tokens_mask",
    "sanitize_control_tokens", "chat_template", "strftime_now",
)  # fmt: skip
"""What `apply_chat_template` calls its own options, which are no variables of a template."""


def template_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a chat template.

    Raises:
        PolicyError: one of them has a name that is none's.
    """
    for name in variables:
        if name in RESERVED:
            raise PolicyError(f"policy.chat_template_kwargs: {name!r} is no variable of a chat template; leave it out.")
    return dict(variables)


def template_date(text: str | None) -> date:
    """Return the date that a chat template takes for today's: that of a text such as 2026-01-31, today's for None.

    Raises:
        PolicyError: the text is no date.
    """
    if text is None:
        return date.today()
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise PolicyError(f"policy.chat_template_date is {text!r}; give a date as 2026-01-31.") from error


def text_ids(tokenizer: Any, text: str, visible: Collection[int] = ()) -> list[int]:
    """Return the token ids of a text within a sequence: no special token is added, and none is read from the text.

    Args:
        tokenizer: of the policy.
        text: what is to be tokenized.
        visible: ids of special tokens that are read from the text after all, by their names (a delimiter such as
            `</think>`).
    """
    if not visible:
        return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
    id_of = {tokenizer.convert_ids_to_tokens(token_id): token_id for token_id in visible}
    names = sorted(map(re.escape, id_of), key=len, reverse=True)
    ids: list[int] = []
    for part in re.split(f"({'|'.join(names)})", text):
        if part in id_of:
            ids.append(id_of[part])
        elif part:
            ids += text_ids(tokenizer, part)
    return ids


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a bare prompt, with the special tokens that the tokenizer puts before a text.

    Those that it appends (an end of sequence, a separator) are left out: the completion has yet to follow.
    """
    # of an empty text nobody could tell what stands before it and what after
    special = tokenizer(text or "a", split_special_tokens=True, return_special_tokens_mask=True).special_tokens_mask
    after = next((i for i, is_special in enumerate(reversed(special)) if not is_special), 0)
    ids = list(tokenizer(text, split_special_tokens=True).input_ids)
    return ids[: len(ids) - after]


def end_tokens(model: Any, tokenizer: Any, size: int, path: str) -> tuple[int, ...]:
    """Return the ids of the tokens that end a completion, as the model names them, or else its tokenizer.

    Args:
        model: with its generation configuration.
        tokenizer: of the model.
        size: how many token ids the model knows.
        path: of the model, for messages.

    Raises:
        PolicyError: neither names a token that the model knows.
    """
    eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    eos = tokenizer.eos_token_id if eos is None else eos
    if eos is None:
        raise PolicyError(f"{path}: neither the model nor its tokenizer names an end-of-sequence token.")
    known = tuple(i for i in (eos if isinstance(eos, list) else [eos]) if 0 <= i < size)
    if not known:
        raise PolicyError(f"{path}: the end-of-sequence token {eos} is beyond the model's {size} tokens.")
    return known


def padding_token(tokenizer: Any, size: int, eos_id: int) -> int:
    """Return the tokenizer's padding token, or `eos_id` where the model has no place for it.

    Nothing attends to padding, so that any token will do.
    """
    pad = tokenizer.pad_token_id
    return eos_id if pad is None or not 0 <= pad < size else pad


DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
"""Where a chat template asks for today's date."""


MARKERS = "[\U000f0000-\U0010ffff]"
"""Characters by which transformers marks a token's name in a text, and which it leaves out of texts that hold them."""


class Encoder:
    """Turns prompts into token ids, by the tokenizer's chat template where it has one, else as bare texts.

    Args:
        tokenizer: of the policy.
        size: how many token ids the model knows.
        variables: of the chat template, such as `enable_thinking`.
        today: the date that the template's `strftime_now` tells.
        path: of the model, for messages.
        use: what becomes of prompts.

    Raises:
        PolicyError: a variable that the template does not have; later, a token that the model does not know.
    """

    def __init__(
        self, tokenizer: Any, size: int, variables: Mapping[str, Any], today: date, path: str, use: TemplateUse = "auto"
    ) -> None:
        self.tokenizer, self.size, self.path, self.use = tokenizer, size, path, use
        self._said: set[bool] = set()
        self.variables, self.today = dict(variables), today
        for name in variables:
            if not re.search(rf"\b{re.escape(name)}\b", self.template or ""):
                has = "has no variable" if self.template else "has no chat template, and so no variable"
                raise PolicyError(f"policy.chat_template_kwargs: the tokenizer of {path} {has} {name!r}; leave it out.")

    @property
    def template(self) -> str | None:
        """The chat template, with the date wherever it asks for today's: transformers lets no function into it."""
        if self.tokenizer.chat_template is None:
            return None
        text: str = self.tokenizer.get_chat_template()
        return DATE.sub(lambda call: repr(self.today.strftime(call[2])), text)

    @cached_property
    def marks(self) -> ChatMarks | None:
        """The marks of the chat template."""
        return chat_marks(self.tokenizer, self.template, self.variables)

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of users' turns, up to where the assistant's begin, as the option `use` says."""
        as_written = [self.is_written(text) for text in texts]
        wrapped = iter(self.wrapped([text for text, written in zip(texts, as_written, strict=True) if not written]))
        return [
            self.written(text) if written else next(wrapped) for text, written in zip(texts, as_written, strict=True)
        ]

    def is_written(self, text: str) -> bool:
        """Return whether a prompt is taken as it is written; `auto` says once what it makes of marks in a prompt."""
        if self.use != "auto":
            return self.use == "written"
        around = self.marks is not None and self.marks.around(text)
        mark = self.marks.opening if around and self.marks else first_mark(text, self.marks)
        if mark and around not in self._said:
            self._said.add(around)
            begin = f"the prompt {text.strip()[:60]!r}... carries the mark {mark} of a chat template"
            if around:
                say(
                    f"{begin}, and is taken as it is written: policy.chat_template=wrap puts it into the template again."
                )
            else:
                into = "stands" if self.marks is None else "is put into the template"
                say(f"{begin}, and {into} as plain text: policy.chat_template=written reads its special tokens.")
        return around

    def wrapped(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of users' turns within the chat template; of bare texts where there is none to be used."""
        if self.template is None or self.use == "none":
            return [self.bare(text) for text in texts]
        return self._chats([[{"role": "user", "content": text}] for text in texts], reply=True) if texts else []

    def written(self, text: str) -> list[int]:
        """Return the token ids of a prompt as it is written: special tokens by their names, and a beginning of sequence."""
        bos, bos_id = self.tokenizer.bos_token or "", self.tokenizer.bos_token_id
        if self.template is None and not (bos and text.startswith(bos)):
            empty = self.bare("")  # what the tokenizer puts before a text
            return self.known([*empty, *self.tokenizer(text, add_special_tokens=False).input_ids])
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        if self.marks is not None and self.marks.bos and ids[:1] != [bos_id]:
            ids = [bos_id, *ids]
        return self.known(ids)

    def chat(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the token ids of a chat of several turns, up to where the assistant's next one begins.

        Raises:
            PolicyError: there is no chat template, or it has no place for such turns.
        """
        roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
        if self.template is None:
            raise PolicyError(
                f"the prompt is a chat ({roles}), and the tokenizer of {self.path} has no chat template; give the prompt as "
                "one text."
            )
        try:
            return self._chats([list(messages)], reply=True)[0]
        except TemplateError as error:
            raise PolicyError(f"the chat template of {self.path} refuses a chat of {roles}: {error}.") from error

    def bare(self, text: str) -> list[int]:
        """Return the token ids of a prompt without the chat template."""
        return self.known(prompt_ids(self.tokenizer, text))

    def turn(self, text: str, reply: str, eos_id: int, visible: Collection[int] = ()) -> tuple[list[int], list[int]]:
        """Return the token ids of a user's turn and of the assistant's reply with its end of sequence.

        Args:
            text: the user's turn.
            reply: the assistant's.
            eos_id: ends a reply that no chat template ends.
            visible: ids of special tokens that are read from a bare reply by their names; a chat template has them as
                plain text, which reads the same.

        Raises:
            PolicyError: the chat template's text with a reply does not begin with its text without.
        """
        written = self.is_written(text)
        prompt = self.written(text) if written else self.wrapped([text])[0]
        if self.template is None or written or self.use == "none":
            gap = "" if written else " "
            return prompt, self.known([*text_ids(self.tokenizer, gap + reply, visible), eos_id])
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
        whole = self._chats([turns], reply=False)[0]
        if whole[: len(prompt)] != prompt:
            raise PolicyError(f"{self.path}: the chat template changes the user's turn once a reply follows it.")
        return prompt, whole[len(prompt) :]

    def _chats(self, conversations: Sequence[list[dict[str, str]]], reply: bool) -> list[list[int]]:
        """Return the token ids of chats; those in which nothing is called like a token are tokenized all at once."""
        special = re.compile("|".join([*map(re.escape, self.tokenizer.get_added_vocab()), MARKERS]))
        in_all = any(map(special.search, _texts(self.variables)))
        holds = [in_all or any(special.search(t) for turn in chat for t in turn.values()) for chat in conversations]
        ids = {
            sanitize: iter(
                self._templated(list(compress(conversations, (each is sanitize for each in holds))), reply, sanitize)
            )
            for sanitize in (False, True)
        }
        return [self.known(list(next(ids[each]))) for each in holds]

    def _templated(self, conversations: list[list[dict[str, str]]], reply: bool, sanitize: bool) -> list[list[int]]:
        if not conversations:
            return []
        ids: list[list[int]] = self.tokenizer.apply_chat_template(
            conversations, chat_template=self.template, add_generation_prompt=reply, return_dict=False,
            sanitize_control_tokens=sanitize, **self.variables,
        )  # fmt: skip
        return ids

    def known(self, ids: list[int]) -> list[int]:
        """Return token ids as they are.

        Raises:
            PolicyError: the model does not know one of them.
        """
        if max(ids, default=0) >= self.size:
            raise PolicyError(
                f"{self.path}: the tokenizer gives token {max(ids)}, the model knows {self.size} tokens; give it the "
                "tokenizer that it was trained with."
            )
        return ids


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in mappings and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(each)
