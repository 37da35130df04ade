"""The benchmark of what a pass costs by itself."""

import json

import pytest

from atmanrl.models.batching import pass_tokens
from atmanrl.models.policy import Policy
from experiments.benchmarks import passes

TRACES = [{"prompt": "3 + 4?", "cot": "3 + 4 = 7. " * repeats, "gold": "7"} for repeats in (1, 2, 9)]


def test_each_division_is_timed_beside_the_reference(tiny_folder, tmp_path):
    file, out = tmp_path / "traces.jsonl", tmp_path / "out.json"
    file.write_text("".join(json.dumps(each) + "\n" for each in TRACES))
    options = ["--traces", str(file), "--tokens", "1", "--repeats", "1", "--batch", "2", "--json", str(out)]
    passes.main(["--model", str(tiny_folder), *options])
    results = json.loads(out.read_text())
    assert results["targets"] == 3 and list(results["tokens"]) == ["1", "512", "own"]
    assert results["tokens"]["512"]["ratio"] == 1 and all(each["seconds"] >= 0 for each in results["tokens"].values())
    assert results["own"] == pytest.approx(pass_tokens(Policy(str(tiny_folder)).build().model), abs=0.1)


def test_passes_are_divided_as_the_tokens_say(tiny_policy, monkeypatch):
    divided = []
    real = passes.Objective._answer_logprobs
    monkeypatch.setattr(passes.Objective, "_answer_logprobs", lambda *args: divided.append(len(args[2])) or real(*args))
    targets = [passes.Target((1, 2), (3,) * length, (4,), (5,)) for length in (2, 3, 40)]
    passes.measured(tiny_policy, [targets], [1], 1)
    assert divided == [2, 1, 3, 3]  # at 1 token, at 512, and at what the tiny model's passes cost
