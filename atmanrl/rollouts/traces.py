"""Traces on disk: one JSON object a line, one schema everywhere.

`problem_id`, `prompt` (the user's turn), `cot`, `answer`, `gold`, `right`, `rewards` by name (null where one
abstained), `prompt_ids`, `completion_ids`, `logprobs` (a number for each token of the completion, or null), `saliency`
(a number for each token of the reasoning, or null), and `row`, `sample`, `finished`, `cot_tokens`; `delimiter` where the
completion was split by another than the default: a text, or an object with the splitter's `class_path`. An evaluation adds
`metrics`: what the rollout adds to each metric, a numerator and a denominator by key. `atmanrl probe` adds
`line` (of the file that it read; through all files of a folder, in which `file` is the place), `pieces` (the text of each
token of the reasoning), `loss_initial`, `loss_final` and `gradients`.

To be read, a trace needs `prompt`, `gold` (or `answer`, taken as gold) and either `cot` or a whole `completion`; token
ids are used where there are any, and the text is tokenized where there are none. What is known of single tokens is read
together with their ids alone. Rows that other tools have written become traces in `trace_rows`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from atmanrl.errors import UserError
from atmanrl.io import jsonl
from atmanrl.io.files import atomic_write
from atmanrl.io.jsonl import Line, RowError
from atmanrl.io.row_files import RowFiles
from atmanrl.io.trace_schema import check_fields
from atmanrl.models.policy import Policy
from atmanrl.rollouts import lm_eval
from atmanrl.rollouts.batch import Rollout
from atmanrl.rollouts.boxed import BoxedSplitter
from atmanrl.rollouts.messages import Message
from atmanrl.rollouts.sampler import Completion
from atmanrl.rollouts.sentences import SentenceSplitter
from atmanrl.rollouts.split import DEFAULT, DelimiterSplitter, Splitter
from atmanrl.rollouts.trace_rows import Fields, Reading, keys_of, to_trace
from atmanrl.tasks import Problem


class TraceError(UserError):
    """A file of traces cannot be used; the message names the file, the line and the field."""


def to_json(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout as one JSON object."""
    return {
        "problem_id": rollout.problem.id,
        "prompt": rollout.prompt,
        "cot": rollout.parts.cot,
        "answer": rollout.parts.answer,
        "gold": rollout.problem.gold,
        "right": rollout.correct,
        "rewards": {name: None if math.isnan(value) else value for name, value in rollout.rewards.items()},
        "row": rollout.row,
        "sample": rollout.sample,
        "finished": rollout.completion.finished,
        "cot_tokens": rollout.parts.cot_length,
        "prompt_ids": rollout.prompt_ids,
        "completion_ids": rollout.completion.ids,
        "logprobs": rollout.completion.logprobs or None,
        "saliency": rollout.saliency,
        **({"metrics": {key: _finite(pair) for key, pair in rollout.metrics.items()}} if rollout.metrics else {}),
        **rollout.parts.splitter.noted,
    }


def _finite(pair: tuple[float, float]) -> list[float | None]:
    """A numerator and a denominator for JSON, which has no NaN."""
    return [number if math.isfinite(number) else None for number in pair]


def write(rollouts: Iterable[Rollout], path: Path) -> None:
    """Write a JSONL file beside `path` and move it there, so that no reader ever sees half of it."""
    with atomic_write(path) as file:
        for rollout in rollouts:
            file.write(jsonl.dumps(to_json(rollout)) + "\n")


def read(
    path: Path,
    limit: int | None = None,
    on_fault: Callable[[int, str], None] | None = None,
    splitter: Splitter = DEFAULT,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the traces of a file or a folder, as `readings` does, without what their rows were taken for."""
    for number, reading in readings(RowFiles(path), limit, on_fault, splitter):
        yield number, reading.trace


def readings(
    files: RowFiles,
    limit: int | None = None,
    on_fault: Callable[[int, str], None] | None = None,
    splitter: Splitter = DEFAULT,
    named: Fields = Fields(),  # noqa: B008  it is frozen
) -> Iterator[tuple[int, Reading]]:
    """Yield line numbers (from 1) and checked traces; empty lines are passed over.

    So are rows of lm-eval that repeat a completion under another filter.

    Args:
        files: of rows; line numbers run on from one to the next.
        limit: read no more than the first so many traces, faulty ones counted.
        on_fault: called with the line number and the fault of each faulty line, which is then passed over; without it,
            the first fault is raised.
        splitter: of traces that name none; messages tell its delimiter.
        named: where rows keep their fields, as far as the user says it.

    Raises:
        TraceError: not JSON, or a field that is missing or of the wrong type.
        UserError: a file is none that can be read.
    """
    try:
        for line in islice(_without_repeats(files), limit):
            reading, fault = _reading(line, splitter, named)
            if not fault:
                yield line.number, reading
            elif on_fault is None:
                raise TraceError(f"{files.place(line.number)}: {fault}")
            else:
                on_fault(line.number, fault)
    except OSError as error:
        raise TraceError(f"the traces {files.path} cannot be read: {error}") from error


def _without_repeats(files: RowFiles) -> Iterator[Line]:
    seen: set[tuple[Path, str]] = set()
    for line in files.read():
        identity = lm_eval.identity(line.row)
        sample = None if identity is None else (files.file_of(line.number), identity)
        if sample is None or sample not in seen:
            yield line
        if sample is not None:
            seen.add(sample)


def _reading(line: Line, splitter: Splitter, named: Fields) -> tuple[Reading, str]:
    """A row as a trace, and what keeps it from being one; empty if nothing does."""
    try:
        reading = Reading({}) if line.fault else to_trace(line.row, named)
    except RowError as error:
        return Reading({}), str(error)
    return reading, line.fault or _fault(reading.trace, line.row, splitter)


def _fault(trace: dict[str, Any], row: dict[str, Any], splitter: Splitter) -> str:
    """What keeps an object from being read as a trace; empty if nothing does."""
    try:
        check_fields(trace)
        splitter = splitter_for(trace, splitter)
    except (RowError, TraceError) as error:
        return str(error)
    if trace.get("prompt") is None:
        return f"field 'prompt' is missing; {keys_of(row)}."
    if all(trace.get(name) is None for name in ("cot", "completion", "completion_ids")):
        return f"needs 'cot', or a whole 'completion' with its delimiter {splitter.opening}; {keys_of(row)}."
    if trace.get("gold") is None and trace.get("answer") is None:
        return f"field 'gold' (or 'answer') is missing; {keys_of(row)}."
    if (logprobs := trace.get("logprobs")) and (ids := trace.get("completion_ids")) and len(logprobs) != len(ids):
        return f"field 'logprobs' has {len(logprobs)} values for {len(ids)} tokens."
    return ""


def splitter_for(trace: dict[str, Any], otherwise: Splitter) -> Splitter:
    """Return the splitter that a trace names; `otherwise` where it names none, or that very one.

    Raises:
        TraceError: it names a class that is neither `otherwise` nor comes with the package: no data makes code run.
    """
    setting = trace.get("delimiter")
    if setting is None or setting == otherwise.setting:
        return otherwise
    if isinstance(setting, str):
        return DelimiterSplitter(setting)
    for own in (BoxedSplitter(), SentenceSplitter()):
        if setting == own.setting:
            return own
    raise TraceError(
        f"field 'delimiter' names {setting['class_path']}; give that class as the delimiter, or leave the field out."
    )


def from_json(trace: dict[str, Any], row: int, policy: Policy, where: str, splitter: Splitter = DEFAULT) -> Rollout:
    """Return the rollout of a checked object, tokenized for `policy` where it has no token ids.

    Args:
        trace: the object.
        row: its number, for what it does not say itself.
        policy: with a tokenizer.
        where: begins error messages.
        splitter: of a trace that names none.

    Raises:
        TraceError: token ids that the policy's vocabulary does not have, more of them than its context holds, or a
            saliency for other tokens.
    """
    tokenizer, splitter = policy.tokenizer, splitter_for(trace, splitter)
    gold = trace["gold"] if trace.get("gold") is not None else trace["answer"]
    prompt_ids = trace.get("prompt_ids") or _prompt_ids(policy, trace["prompt"], trace.get("messages"))
    ids = trace.get("completion_ids")
    if ids is None:
        text = trace.get("completion")
        if text is None:
            answer = trace["answer"] if trace.get("answer") is not None else gold
            text = splitter.join(trace["cot"].rstrip(), answer)
        ids = _text_ids(policy, text, splitter)
    size = policy.vocabulary_size
    if max(*prompt_ids, *ids, 0) >= size:
        raise TraceError(
            f"{where}: token ids beyond the model's vocabulary of {size}; these traces come from another tokenizer. "
            "Leave prompt_ids and completion_ids out to tokenize the text anew."
        )
    if excess := policy.excess(len(prompt_ids) + len(ids)):  # before the text is cut, which takes its time
        raise TraceError(f"{where}: {excess}.")
    known = {name: value for name, value in trace.items() if value is not None}
    problem = Problem(id=str(known.get("problem_id", f"trace/{row}")), question=trace["prompt"], gold=gold)
    parts = splitter.split(tokenizer, ids)
    of_tokens = (
        known if "completion_ids" in known else {}
    )  # nothing is known of tokens of a text that is tokenized anew
    saliency = of_tokens.get("saliency")
    if saliency is not None and len(saliency) != parts.cot_length:
        raise TraceError(
            f"{where}: field 'saliency' has {len(saliency)} values for a reasoning of {parts.cot_length} tokens."
        )
    rewards = {name: math.nan if value is None else value for name, value in known.get("rewards", {}).items()}
    return Rollout(
        problem=problem, row=known.get("row", row), sample=known.get("sample", 0), prompt=trace["prompt"],
        prompt_ids=prompt_ids, completion=Completion(ids, of_tokens.get("logprobs", []), known.get("finished", True)),
        parts=parts, correct=trace.get("right"), rewards=rewards, saliency=saliency,
    )  # fmt: skip


def _prompt_ids(policy: Policy, prompt: str, messages: list[Message] | None) -> list[int]:
    """Token ids of a user's turn, or of the messages of a chat up to where the completion begins."""
    return policy.encode_prompt(prompt) if messages is None else policy.encoder.chat(messages)


def _text_ids(policy: Policy, text: str, splitter: Splitter) -> list[int]:
    """Token ids of a stored text, which may end in the name of an end-of-sequence token; elsewhere such a name is text."""
    for eos_id in policy.eos_ids:
        name = policy.tokenizer.decode([eos_id])
        if name and text.endswith(name):
            return [*splitter.text_ids(policy.tokenizer, text.removesuffix(name)), eos_id]
    return splitter.text_ids(policy.tokenizer, text)
