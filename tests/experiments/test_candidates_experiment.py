"""On which task is a policy right often enough: what is written down of each candidate."""

import json

from experiments.real import candidates

NAME = "chains of two steps, bare"


def test_a_candidate_is_tried_once_for_each_policy(tiny_folder, tmp_path, monkeypatch):
    out = tmp_path / "candidates.json"
    words = ["--model", str(tiny_folder), "--json", str(out), "--problems", "2", "--samples", "3", "--new-tokens", "4"]
    assert candidates.main([*words, "--only", NAME]) == 0
    figures = json.loads(out.read_text())[str(tiny_folder)][NAME]
    assert (figures["completions"], figures["right"], len(figures["first completions"])) == (6, 0, 3)
    assert "Reason step by step" not in figures["prompt"]
    monkeypatch.setattr(candidates, "tried", lambda *_: 1 / 0)
    assert candidates.main([*words, "--only", NAME]) == 0


def test_candidates_are_the_problems_that_settings_are_chosen_on():
    tasks = [candidates.CANDIDATES[name]() for name in (NAME, "word problems, bare")]
    assert {task.seed for task in tasks} == {1}
