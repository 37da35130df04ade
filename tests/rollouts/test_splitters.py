"""Whatever marks the answer: splitting against brute force, prompts, rewards, replies and stored traces that follow it."""

import json
import re
from functools import cache

import pytest
from conftest import BLANK
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.models.tokenizing import text_ids
from atmanrl.rewards import FormatReward
from atmanrl.rollouts import (
    BoxedSplitter,
    Completion,
    DelimiterSplitter,
    Place,
    Rollout,
    RolloutBatch,
    RolloutDataModule,
    Splitter,
    split,
    traces,
)
from atmanrl.rollouts.split import splitter_of
from atmanrl.rollouts.token_texts import token_texts
from atmanrl.rollouts.traces import TraceError
from atmanrl.sft import SFTDataModule
from atmanrl.tasks import MMLU, MixtureTask, Problem, WordProblems

DELIMITERS = ["#####", "</think>", "The answer is", "\n\n", "\u00e9=", "<|end|>final"]
BOX = BoxedSplitter()


class LastColon(Splitter):
    """Somebody's own: the answer follows the last colon."""

    opening = ":"

    def find(self, text):
        start = text.rfind(":")
        return None if start < 0 else Place(start, start + 1, text[start + 1 :].strip())


@cache
def tokenizer_with(*special: str):
    """The laptop tokenizer with some more special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(BLANK)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    return tokenizer


SPECIAL = ("</think>", "<|end|>", "<|other|>")


def shown(tokenizer, ids, names: set[str]) -> str:
    """The text with the special tokens of these names in it, and without all others."""
    special = {i for i in tokenizer.all_special_ids if tokenizer.convert_ids_to_tokens(i) not in names}
    return tokenizer.decode([i for i in ids if i not in special], skip_special_tokens=False)


@pytest.mark.parametrize("special", [(), SPECIAL], ids=["plain", "special"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
@given(data=st.data())
def test_any_delimiter_against_brute_force(special, delimiter, data):
    tokenizer = tokenizer_with(*special)
    texts = st.sampled_from(
        [delimiter, delimiter[:2], delimiter[1:], "a", " 7", ".", "\n", "\u00e9", "\u2603", "{", "="]
    )
    ids = text_ids(tokenizer, "".join(data.draw(st.lists(texts, max_size=10))))
    more = st.lists(st.sampled_from([*tokenizer.convert_tokens_to_ids([*special]), tokenizer.eos_token_id, ids[:1]]))
    for extra in data.draw(more):
        place = data.draw(st.integers(0, len(ids)))
        ids[place:place] = extra if isinstance(extra, list) else [extra]
    parts = split(tokenizer, ids, delimiter)
    names = {name for name in special if name in delimiter}
    assert parts.text == shown(tokenizer, ids, names)
    before, found, after = parts.text.partition(delimiter)
    assert (parts.cot, parts.answer) == (before, after.strip() if found else None)
    assert parts.opening == delimiter
    if found:
        prefixes = [k for k in range(len(ids) + 1) if before.startswith(shown(tokenizer, ids[:k], names))]
        assert parts.cot_length == max(prefixes)
        assert shown(tokenizer, ids[: parts.cot_length], names) + parts.straddle == before
    visible = parts.splitter.visible(tokenizer)
    assert "".join(token_texts(tokenizer, ids, visible)) == parts.text


def test_a_special_token_is_found_as_the_delimiter_that_it_is():
    tokenizer = tokenizer_with(*SPECIAL)
    think, other = tokenizer.convert_tokens_to_ids(["</think>", "<|other|>"])
    ids = [*text_ids(tokenizer, "3 + 4 is 7"), think, other, *text_ids(tokenizer, "7"), tokenizer.eos_token_id]
    assert split(tokenizer, ids).answer is None
    parts = split(tokenizer, ids, "</think>")
    assert (parts.cot, parts.answer, parts.cot_length) == ("3 + 4 is 7", "7", ids.index(think))
    splitter = DelimiterSplitter("</think>")
    joined = splitter.text_ids(tokenizer, splitter.join("so", "7<|other|>"))
    assert think in joined and other not in joined  # what else is called like a special token stays a text
    assert split(tokenizer, joined, "</think>").answer == "7<|other|>"


@pytest.mark.parametrize(
    ("text", "cot", "answer"),
    [
        (r"3 + 4 = 7. \boxed{7}", "3 + 4 = 7. ", "7"),
        (r"So it is \boxed{7}.", "So it is ", "7"),
        (r"It is \boxed{ 7 }." + "\nI am sure.", "It is ", "7"),
        (r"\boxed{3}, no, \boxed{7}", r"\boxed{3}, no, ", "7"),
        (r"a \boxed{\frac{1}{2}} $", "a ", r"\frac{1}{2}"),
        (r"a \boxed{\{1, 2\}}", "a ", r"\{1, 2\}"),
        (r"a \boxed{\left\{x\right.}", "a ", r"\left\{x\right."),
        (r"a \boxed{x\\}", "a ", r"x\\"),
        (r"a \boxed{}", "a ", ""),
        (r"a \boxed{7", r"a \boxed{7", None),
        (r"a \boxed{7\}", r"a \boxed{7\}", None),
        (r"\boxed{3} and \boxed{7", r"\boxed{3} and \boxed{7", None),
        ("a boxed{7}", "a boxed{7}", None),
    ],
)
def test_boxes(text, cot, answer):
    tokenizer = tokenizer_with()
    ids = [*text_ids(tokenizer, text), tokenizer.eos_token_id]
    parts = split(tokenizer, ids, BOX)
    assert (parts.text, parts.cot, parts.answer, parts.opening) == (text, cot, answer, r"\boxed{")


def balanced(text: str) -> bool:
    """Whether the braces of a text match and none is closed before it opens, by taking pairs away."""
    text = re.sub(r"[^{}]", "", re.sub(r"\\.", "", text, flags=re.DOTALL))
    while "{}" in text:
        text = text.replace("{}", "")
    return not text


@given(
    st.lists(st.sampled_from([r"\boxed{", "{", "}", "\\", r"\{", r"\}", "7", " ", "\n", "."]), max_size=14).map("".join)
)
@example(r"\boxed{\boxed{7}}")
def test_any_box_against_brute_force(text):
    """The answer is the shortest text behind the last opening that is balanced and has a brace behind it."""
    place = BOX.find(text)
    head, opening, tail = text.rpartition(r"\boxed{")
    ends = [k for k in range(len(tail)) if balanced("{" + tail[: k + 1]) and not balanced("{" + tail[:k])]
    if not opening or not ends:
        assert place is None
    else:
        assert place == Place(len(head), len(head) + len(opening), tail[: ends[0]].strip())


@pytest.mark.parametrize("delimiter", [*DELIMITERS, BOX, LastColon()])
@given(cot=st.sampled_from(["3 + 4 = 7.", "a", "so \u00e9"]), answer=st.sampled_from(["7", "1,000", "B"]))
def test_what_is_joined_is_split_again(delimiter, cot, answer):
    splitter, tokenizer = splitter_of(delimiter), tokenizer_with(*SPECIAL)
    parts = splitter.split(tokenizer, splitter.text_ids(tokenizer, splitter.join(cot, answer)))
    assert (parts.cot.rstrip(), parts.answer) == (cot, answer)
    assert not splitter.cuts(cot) and splitter.cuts(f"a {splitter.opening} b") == isinstance(
        splitter, DelimiterSplitter
    )


def test_prompts_ask_for_the_delimiter(tiny_folder):
    problem = WordProblems(train_size=1, test_size=1).problems("train")[0]
    asked = {
        "#####": "Then write ##### followed by the final answer alone, for example: ##### 42",
        "</think>": "Then write </think> followed by the final answer alone, for example: </think> 42",
        BOX: r"Then write the final answer alone in \boxed{}, for example: \boxed{42}",
        LastColon(): "Then write the final answer alone as in this example: : 42",
    }
    for delimiter, sentence in asked.items():
        for task in (
            WordProblems(train_size=1, test_size=1),
            MixtureTask({"w": WordProblems(train_size=1, test_size=1)}),
        ):
            RolloutDataModule(task, delimiter=delimiter)
            own = problem if isinstance(task, WordProblems) else task.problems("train")[0]
            assert task.prompt(own) == f"{problem.question}\n\nReason step by step. {sentence}"
    choice, letters = MMLU(), Problem("m", "A. b", "A")
    RolloutDataModule(choice, delimiter=BOX)
    assert choice.prompt(letters).endswith(r"the letter of the right choice alone in \boxed{}, for example: \boxed{C}")
    for given_text, expected in {"": "A. b", "Denk! {answer_format} {x}": None, "Say {x}.": "A. b\n\nSay {x}."}.items():
        task = MMLU(instruction=given_text)
        RolloutDataModule(task, delimiter="=>")
        told = "Then write => followed by the letter of the right choice alone, for example: => C"
        assert task.prompt(letters) == (expected or f"A. b\n\nDenk! {told} {{x}}")


@pytest.mark.parametrize("bad", ["", "\ud800", "own.Splitter", "BoxSplitter"])
def test_what_is_no_delimiter_is_refused(bad):
    with pytest.raises(UserError, match=r"data\.delimiter"):
        splitter_of(bad)


def test_a_stop_string_may_not_end_completions_before_the_answer():
    task = WordProblems(train_size=1, test_size=1)
    for delimiter, stop in (("The answer is", "answer"), (BOX, "{"), ("</think>", "think")):
        with pytest.raises(UserError, match=r"data\.stop holds"):
            RolloutDataModule(task, delimiter=delimiter, stop=[stop])
        RolloutDataModule(task, delimiter=delimiter, stop=["##"])


def rollout(policy, text: str, splitter: Splitter) -> Rollout:
    ids = splitter.text_ids(policy.tokenizer, text)
    parts = splitter.split(policy.tokenizer, ids)
    return Rollout(Problem("p/0", "?", "7"), 0, 0, "?", policy.encode_prompt("?"), Completion(ids, [], True), parts)


def test_the_format_reward_counts_what_marks_the_answer(tiny_policy):
    forms = {
        "The answer is": {"7. The answer is 7": 1, "##### 7": 0, "The answer is 7. The answer is 7": 0},
        BOX: {r"so \boxed{7}.": 1, r"\boxed{3} \boxed{7}": 0, "##### 7": 0, r"\boxed{}": 0},
    }
    for delimiter, expected in forms.items():
        made = [rollout(tiny_policy, text, splitter_of(delimiter)) for text in expected]
        assert FormatReward()(RolloutBatch(made, 1), None).tolist() == list(expected.values())


@pytest.mark.parametrize("splitter", [*map(DelimiterSplitter, DELIMITERS), BOX, LastColon()])
def test_stored_traces_tell_what_split_them(tiny_policy, tmp_path, splitter):
    made, path = rollout(tiny_policy, splitter.join("3 + 4 is 7.", "7"), splitter), tmp_path / "t.jsonl"
    traces.write([made], path)
    row = json.loads(path.read_text())
    assert row.get("delimiter") == (None if splitter.opening == "#####" else splitter.setting)
    own = isinstance(splitter, LastColon)
    for keep in (True, False):  # with the ids and joined from reasoning and answer
        stored = row if keep else {name: row[name] for name in ("prompt", "cot", "answer", "gold") if name in row}
        stored |= {"delimiter": row["delimiter"]} if "delimiter" in row else {}
        path.write_text(json.dumps(stored))
        ((_, trace),) = traces.read(path, splitter=splitter)
        back = traces.from_json(trace, 0, tiny_policy, "here", splitter if own else DelimiterSplitter())
        assert back.parts == made.parts and back.completion.ids == made.completion.ids
        assert back.parts.splitter.setting == splitter.setting
    if own:
        with pytest.raises(TraceError, match=r"t\.jsonl, line 1: .*LastColon"):
            list(traces.read(path))


@pytest.mark.parametrize("bad", ["", 3, [], {}, {"class_path": 3}])
def test_a_delimiter_of_the_wrong_kind_is_named(tmp_path, bad):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({"prompt": "?", "cot": "a", "gold": "1", "delimiter": bad}))
    with pytest.raises(TraceError, match="'delimiter' must be a text, or an object with a class_path"):
        list(traces.read(path))


def test_a_worked_solution_ends_as_the_delimiter_asks(tiny_folder):
    from types import SimpleNamespace

    policy = Policy(str(tiny_folder))
    for delimiter, ending in (("#####", "##### {}"), ("The answer is", "The answer is {}"), (BOX, r"\boxed{{{}}}")):
        task = WordProblems(train_size=3, test_size=1)
        module = SFTDataModule(task, val_problems=1, delimiter=delimiter)
        module.trainer = SimpleNamespace(lightning_module=SimpleNamespace(policy=policy))
        module.setup("fit")
        for each, problem in zip(module.examples, task.problems("train"), strict=True):
            text = policy.tokenizer.decode(each.completion, skip_special_tokens=True)
            assert text.strip() == f"{problem.solution}\n{ending.format(problem.gold)}"
            assert split(policy.tokenizer, each.completion, delimiter).answer == problem.gold
