"""Rows that other tools have written are taken for what they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atmanrl.io.jsonl import RowError
from atmanrl.rollouts import traces
from atmanrl.rollouts.trace_rows import Fields, to_trace

GSM8K = {"question": "8 + 10?", "answer": "8 + 10 = <<8+10=18>>18.\n#### 18"}
USER = {"role": "user", "content": "8 + 10?"}
ASSISTANT = {"role": "assistant", "content": "It is 18. The answer is 18."}
SYSTEM = {"role": "system", "content": "Be brief."}
PLAIN = {"prompt": "8 + 10?", "completion": ASSISTANT["content"], "gold": "18"}
LM_EVAL = {
    "doc_id": 0, "doc": GSM8K, "target": GSM8K["answer"], "resps": [[ASSISTANT["content"]]], "filtered_resps": ["18"],
    "filter": "strict-match", "exact_match": 1.0,
}  # fmt: skip
TRL = {
    "step": 5,
    "prompt": [USER],
    "completion": [ASSISTANT],
    "correct": 1.0,
    "solution": r"\boxed{18}",
    "advantage": 0.1,
}
CASES = {
    "traces of ours": (PLAIN, PLAIN),
    "a number as gold": ({**PLAIN, "gold": 18}, PLAIN),
    "a whole number written with a point": ({**PLAIN, "gold": 18.0}, PLAIN),
    "GSM8K's data": (GSM8K, {"prompt": "8 + 10?", "cot": "8 + 10 = 18.", "gold": "18"}),
    "answers to GSM8K": ({**GSM8K, "completion": PLAIN["completion"]}, PLAIN),
    "a chat": ({"messages": [USER, ASSISTANT], "gold": 18}, PLAIN),
    "a chat in ShareGPT's names": (
        {
            "conversations": [
                {"from": "human", "value": "8 + 10?"},
                {"from": "gpt", "value": ASSISTANT["content"]},
            ],
            "answer": "18",
        },
        PLAIN,
    ),
    "a chat of parts": (
        {"messages": [{**USER, "content": [{"type": "text", "text": "8 + 10?"}]}, ASSISTANT], "target": "#### 18"},
        PLAIN,
    ),
    "a chat of several turns": (
        {"messages": [SYSTEM, USER, ASSISTANT], "gold": 18},
        {**PLAIN, "prompt": "system: Be brief.\n\nuser: 8 + 10?", "messages": [SYSTEM, USER]},
    ),
    "a reasoning apart": (
        {"messages": [USER, {"role": "assistant", "reasoning_content": "8 + 10", "content": "18"}], "gold": 18},
        {**PLAIN, "completion": "<think>\n8 + 10\n</think>\n\n18"},
    ),
    "TRL's log of chats": (TRL, PLAIN),
    "TRL's log of texts": ({**TRL, "prompt": "8 + 10?", "completion": PLAIN["completion"]}, PLAIN),
    "lm-eval's list of arguments": ({**LM_EVAL, "arguments": [["8 + 10?", {"until": ["Q"]}]]}, PLAIN),
    "lm-eval's named arguments": (
        {**LM_EVAL, "arguments": {"gen_args_0": {"arg_0": "8 + 10?", "arg_1": {"until": ["Q"]}}}},
        PLAIN,
    ),
    "lm-eval's chats": (
        {**LM_EVAL, "arguments": {"gen_args_0": {"arg_0": [json.dumps([USER])], "arg_1": {}}}},
        PLAIN,
    ),
    "lm-eval without arguments": (LM_EVAL, PLAIN),
}


@pytest.mark.parametrize(("row", "trace"), CASES.values(), ids=CASES)
def test_a_row_becomes_the_trace_that_it_is(row, trace):
    assert to_trace(row).trace == trace


def test_what_a_row_was_taken_for_is_said():
    reading = to_trace(GSM8K)
    assert reading.kind == "GSM8K's data"
    assert reading.sources == {"prompt": "question", "cot": "answer before ####", "gold": "answer behind ####"}
    assert to_trace(LM_EVAL).kind == "lm-eval's samples" and to_trace(TRL).kind == "TRL's completions"
    assert to_trace(TRL).sources["gold"] == "solution in its box" and not to_trace(PLAIN).sources


def test_the_user_says_where_fields_stand():
    row = {"q": {"text": "8 + 10?"}, "outputs": ["It is 18. The answer is 18."], "dotted.key": 18, "cot": "not this"}
    named = Fields(prompt="q.text", completion="outputs.0", gold="dotted.key")
    assert to_trace(row, named).trace == PLAIN
    only = to_trace({**PLAIN, "why": "8 + 10 = 18", "completion_ids": [5]}, Fields(cot="why")).trace
    assert only == {"prompt": "8 + 10?", "cot": "8 + 10 = 18", "gold": "18"}


@pytest.mark.parametrize(
    ("row", "named", "message"),
    [
        (
            PLAIN,
            Fields(prompt="q"),
            "nothing stands at the key 'q'; the row has the keys 'prompt', 'completion', 'gold'.",
        ),
        (PLAIN, Fields(gold="gold.0"), "nothing stands at the key 'gold.0'"),
        ({**LM_EVAL, "resps": [[[-3.0, False]], [[-4.0, True]]]}, Fields(), "log-likelihoods and no completion"),
        ({**LM_EVAL, "resps": [[["-3.0", "False"]]]}, Fields(), "log-likelihoods and no completion"),
        (
            {"messages": [USER, {"role": "assistant", "content": None}]},
            Fields(),
            "message 2 of field 'messages' has",
        ),
        ({"messages": [{"content": "x"}]}, Fields(), "message 1 of field 'messages' has no role"),
        ({**TRL, "completion": [ASSISTANT, USER]}, Fields(), "field 'completion' has 2 messages"),
    ],
)
def test_a_row_that_cannot_be_taken_says_why(row, named, message):
    with pytest.raises(RowError) as caught:
        to_trace(row, named)
    assert message in str(caught.value)


def test_a_completion_under_two_filters_is_one_trace(tmp_path):
    samples = [{**LM_EVAL, "doc_id": k, "filter": name} for name in ("strict", "flexible") for k in range(3)]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    assert [line for line, _ in traces.read(tmp_path / "samples.jsonl")] == [1, 2, 3]
    assert [line for line, _ in traces.read(tmp_path / "samples.jsonl", limit=2)] == [1, 2]


def test_a_missing_field_is_named_with_the_keys_that_are_there(tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({name: value for name, value in TRL.items() if name != "solution"}))
    with pytest.raises(
        traces.TraceError, match=r"t\.jsonl, line 1: field 'gold' .* is missing; the row has the keys 'step'"
    ):
        list(traces.read(tmp_path / "t.jsonl"))


def test_a_chat_of_several_turns_goes_through_the_chat_template(tiny_policy):
    trace = to_trace(CASES["a chat of several turns"][0]).trace
    rollout = traces.from_json(trace, 0, tiny_policy, "here")
    assert rollout.prompt_ids == tiny_policy.tokenizer.apply_chat_template(
        [SYSTEM, USER], add_generation_prompt=True, return_dict=False
    )
    tiny_policy.tokenizer.chat_template = None
    with pytest.raises(ValueError, match=r"a chat \(system, user\), and the tokenizer of .* has no chat template"):
        traces.from_json(trace, 0, tiny_policy, "here")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "####", "a #### 7"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "content", "text", "gen_args_0", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(
    sorted({*PLAIN, *GSM8K, *TRL, *LM_EVAL, "arguments", "messages", "conversations", "cot", "delimiter"})
)


@given(st.dictionaries(keys, values))
def test_any_row_is_a_checked_trace_or_a_fault(tmp_path_factory, row):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(row))
    faults = []
    read = list(traces.read(path, on_fault=lambda *fault: faults.append(fault)))
    assert len(read) + len(faults) == 1
    for _, trace in read:
        assert isinstance(trace["prompt"], str) and isinstance(trace.get("gold", trace.get("answer")), str)
        assert isinstance(trace.get("cot", trace.get("completion")) or trace.get("completion_ids"), str | list)
