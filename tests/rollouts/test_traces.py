"""Traces on disk: what is written is read back, and every fault is named with its file, line and field."""

import json

import pytest

from atmanrl.errors import UserError
from atmanrl.io import jsonl
from atmanrl.rollouts import Completion, DelimiterSplitter, Rollout, split, traces
from atmanrl.rollouts.traces import TraceError
from atmanrl.tasks import Problem

STRANGE = "a\u2028line\u0085break \u00e9\U0001f600\n##### 7"  # two line ends for str.splitlines that JSON leaves alone
TEXTS = ["3 + 4 = 7. ##### 7", STRANGE, "no delimiter", 'tab\tand "quotes"\\ ##### 7']


@pytest.fixture
def rollouts(tiny_policy) -> list[Rollout]:
    """Two samples of two problems."""
    made = []
    for i, text in enumerate(TEXTS):
        ids = [*tiny_policy.tokenizer(text).input_ids, tiny_policy.eos_ids[0]]
        parts = split(tiny_policy.tokenizer, ids)
        problem = Problem(f"test/{i // 2}", "What is 3 + 4?\u2029", "7")
        prompt_ids = tiny_policy.encode_prompt(problem.question)
        completion = Completion(ids, [-0.5] * len(ids), finished=i != 2)
        right = parts.answer == "7"
        rewards = {"outcome": 0.0 if right else -1.0, "saliency": 0.25 if right else float("nan")}
        saliency = [0.5] * parts.cot_length if right else None
        prompt = problem.question
        made.append(Rollout(problem, i // 2, i % 2, prompt, prompt_ids, completion, parts, right, rewards, saliency))
    return made


def load(path, policy) -> list[Rollout]:
    return [traces.from_json(t, i, policy, f"line {n}") for i, (n, t) in enumerate(traces.read(path))]


def fails(tmp_path, line: object, *parts: str) -> None:
    """Reading `line` as the third line of a file fails, and the message holds file, line and `parts`."""
    path = tmp_path / "broken.jsonl"
    good = json.dumps({"prompt": "?", "gold": "1", "cot": "a"})
    path.write_text(f"{good}\n\n{line if isinstance(line, str) else json.dumps(line)}\n{good}\n", encoding="utf-8")
    with pytest.raises(TraceError) as caught:
        list(traces.read(path))
    for part in (f"{path}, line 3", *parts):
        assert part in str(caught.value)


def test_round_trip(rollouts, tiny_policy, tmp_path):
    path = tmp_path / "new/folder/traces.jsonl"
    traces.write(rollouts, path)
    assert [f.name for f in path.parent.iterdir()] == ["traces.jsonl"]
    back = load(path, tiny_policy)
    for was, now in zip(rollouts, back, strict=True):
        same = ("row", "sample", "prompt", "prompt_ids", "parts", "correct", "cot_ids", "can_be_probed")
        assert all(getattr(was, name) == getattr(now, name) for name in same)
        assert (was.problem.id, was.problem.gold, was.problem.question) == (now.problem.id, "7", now.problem.question)
        assert (was.completion.ids, was.completion.finished) == (now.completion.ids, now.completion.finished)
    traces.write(back, tmp_path / "again.jsonl")
    first, second = (list(traces.read(p)) for p in (path, tmp_path / "again.jsonl"))
    assert first == second
    assert (tmp_path / "again.jsonl").read_bytes() == path.read_bytes()
    assert back[0].completion.logprobs == rollouts[0].completion.logprobs and back[0].rewards == rollouts[0].rewards


def test_what_was_known_of_tokens_needs_their_ids(rollouts, tiny_policy):
    trace = traces.to_json(rollouts[0])
    anew = traces.from_json({**trace, "completion_ids": None}, 0, tiny_policy, "x")
    assert anew.saliency is None and anew.completion.logprobs == [] and anew.rewards == rollouts[0].rewards
    with pytest.raises(TraceError, match="x: field 'saliency' has 1 values for a reasoning of"):
        traces.from_json({**trace, "saliency": [0.5]}, 0, tiny_policy, "x")


def test_one_line_of_strict_json_each(rollouts, tmp_path):
    traces.write(rollouts, tmp_path / "t.jsonl")
    raw = (tmp_path / "t.jsonl").read_bytes()
    lines = raw.decode().split("\n")
    assert len(lines) == 5 and lines[-1] == "" and "\u00e9\U0001f600" in lines[1]

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    objects = [json.loads(line, parse_constant=refuse) for line in lines[:4]]
    assert objects[2]["rewards"] == {"outcome": -1.0, "saliency": None}
    assert objects[2]["saliency"] is None and objects[2]["answer"] is None and objects[2]["cot"] == "no delimiter"
    assert objects[0]["rewards"] == {"outcome": 0.0, "saliency": 0.25}
    assert objects[0]["cot_tokens"] == len(objects[0]["saliency"]) == rollouts[0].parts.cot_length


def test_a_torn_write_leaves_the_old_file(rollouts, tmp_path, monkeypatch):
    path = tmp_path / "t.jsonl"
    traces.write(rollouts[:2], path)
    old, dumps, calls = path.read_bytes(), jsonl.dumps, []

    def torn(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dumps(*args, **kwargs)

    monkeypatch.setattr(jsonl, "dumps", torn)
    with pytest.raises(KeyboardInterrupt):
        traces.write(rollouts, path)
    assert path.read_bytes() == old and len(calls) == 3
    monkeypatch.undo()
    traces.write(rollouts[1:], path)
    assert len(list(traces.read(path))) == 3
    assert list(tmp_path.iterdir()) == [path]


def test_traces_of_text_alone(tiny_policy, tmp_path):
    path = tmp_path / "t.jsonl"
    whole = {"prompt": "?", "gold": "7", "completion": "3 + 4 = 7. ##### 8"}
    pieces = {"problem_id": None, "prompt": "?", "answer": "7", "cot": "3 + 4 = 7. "}
    path.write_text("\r\n".join(["", json.dumps(whole), "   ", json.dumps(pieces)]), encoding="utf-8")
    assert [n for n, _ in traces.read(path)] == [2, 4]
    first, second = load(path, tiny_policy)
    assert (first.parts.cot, first.parts.answer, first.problem.gold) == ("3 + 4 = 7. ", "8", "7")
    assert (second.parts.cot, second.parts.answer, second.problem.gold) == ("3 + 4 = 7.\n", "7", "7")
    assert [first.problem.id, second.problem.id] == ["trace/0", "trace/1"]
    assert (first.row, second.row, first.sample, first.correct) == (0, 1, 0, None)
    assert first.prompt_ids == tiny_policy.encode_prompt("?") and first.can_be_probed


def test_given_token_ids_are_used_as_they_are(tiny_policy, tmp_path):
    ids = [*tiny_policy.tokenizer("b ##### 2").input_ids, 2]
    trace = {"prompt": "?", "gold": "1", "cot": "ignored", "prompt_ids": [1, 9], "completion_ids": ids}
    (tmp_path / "t.jsonl").write_text(json.dumps(trace))
    (rollout,) = load(tmp_path / "t.jsonl", tiny_policy)
    assert rollout.prompt_ids == [1, 9] and rollout.completion.ids == ids and rollout.parts.answer == "2"


BASE = {"prompt": "?", "gold": "1", "cot": "a"}


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('{"prompt": "?"', ("not JSON", "column 15")),
        ("[1]", ("JSON object", "list")),
        ('"text"', ("JSON object", "str")),
        *[({**BASE, name: 5}, (f"'{name}'", "text")) for name in ("prompt", "cot", "completion")],
        *[({**BASE, name: [7, 8]}, (f"'{name}'", "a text or a number")) for name in ("answer", "gold")],
        ({**BASE, "gold": True}, ("'gold'", "a text or a number")),
        *[
            ({**BASE, name: value}, (f"'{name}'", "list of token ids"))
            for name in ("prompt_ids", "completion_ids")
            for value in ([], [-1], [1.0], [True], ["1"], "12", 5, {"0": 1})
        ],
        *[({**BASE, name: value}, (f"'{name}'",)) for name in ("row", "sample") for value in ("x", 1.5, [], True)],
        *[
            ({**BASE, name: value}, (f"'{name}'", "true or false"))
            for name in ("right", "finished")
            for value in ("x", 1)
        ],
        *[
            ({**BASE, name: value}, (f"'{name}'", "list of numbers"))
            for name in ("saliency", "logprobs")
            for value in (["x"], [True], [None], 1, {})
        ],
        *[
            ({**BASE, "rewards": value}, ("'rewards'", "object of numbers"))
            for value in ([], 1, {"a": "x"}, {"a": True})
        ],
        ({**BASE, "completion_ids": [1, 2], "logprobs": [0.5]}, ("'logprobs'", "1 values for 2 tokens")),
        ({**BASE, "saliency": [float("nan")]}, ("not JSON", "NaN")),
        ({**BASE, "saliency": [10**400]}, ("'saliency'", "beyond all range")),
        ({**BASE, "cot": "\ud800"}, ("'cot'", "surrogate")),
        ({**BASE, "problem_id": "\ud800"}, ("'problem_id'", "surrogate")),
        ({**BASE, "problem_id": []}, ("'problem_id'", "a text or a whole number")),
        ({**BASE, "rewards": {"\ud800": 1}}, ("'rewards'", "key", "UTF-8")),
        ({**BASE, "cot_tokens": -1}, ("'cot_tokens'", "at least 0")),
        ("[" * 100_000, ("not JSON",)),
        ('{"row": ' + "1" * 5000 + "}", ("not JSON",)),
        ({"gold": "1", "cot": "a"}, ("'prompt'", "missing")),
        ({**BASE, "prompt": None}, ("'prompt'", "missing")),
        ({"prompt": "?", "gold": "1"}, ("'cot'", "'completion'", "#####")),
        ({"prompt": "?", "cot": "a"}, ("'gold'", "'answer'", "missing")),
    ],
)
def test_faults_are_named(tmp_path, line, parts):
    fails(tmp_path, line, *parts)


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(UserError, match=f"the traces {path} cannot be read"):
            list(traces.read(path))
    (tmp_path / "latin.jsonl").write_bytes(b'\n{"prompt": "caf\xe9"}')
    with pytest.raises(UserError, match=r"latin\.jsonl, line 2: not UTF-8 \(byte 16\)"):
        list(traces.read(tmp_path / "latin.jsonl"))


def test_faults_can_be_passed_over(tmp_path):
    path, faults = tmp_path / "t.jsonl", []
    good = json.dumps(BASE)
    path.write_text("\n".join([good, "", "{", good, "[]", good]))
    found = [n for n, _ in traces.read(path, 4, lambda *fault: faults.append(fault))]
    assert found == [1, 4] and [n for n, _ in faults] == [3, 5] and faults[0][1].startswith("not JSON")
    assert [n for n, _ in traces.read(path, 1)] == [1]


@pytest.mark.parametrize("name", ["prompt_ids", "completion_ids"])
def test_token_ids_beyond_the_vocabulary(tiny_policy, name):
    ids = {"prompt_ids": [1], "completion_ids": [5, 767]}
    traces.from_json({**BASE, **ids}, 0, tiny_policy, "x")
    with pytest.raises(TraceError, match="t.jsonl, line 9: token ids beyond .* vocabulary of 768"):
        traces.from_json({**BASE, **ids, name: [5, 768]}, 0, tiny_policy, "t.jsonl, line 9")


def test_a_text_beyond_the_context_is_refused_before_it_is_cut(tiny_policy, monkeypatch):
    monkeypatch.setattr(DelimiterSplitter, "split", None)
    with pytest.raises(TraceError, match=r"t.jsonl, line 2: \d+ tokens exceed the model's context of"):
        traces.from_json({**BASE, "cot": "a " * 100_000}, 0, tiny_policy, "t.jsonl, line 2")
