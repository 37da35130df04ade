"""The delimiter as a choice, from the command line: `fit` with words and a user's splitter, `explain`, `atmanrl probe`."""

import json
import re
import sys

import pytest
import yaml
from conftest import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

from atmanrl import explain
from atmanrl.__main__ import main
from atmanrl.errors import UserError
from atmanrl.probe import PaperSolver
from atmanrl.rollouts import BoxedSplitter

SPEAKER = '''
"""A sampler that always says the same."""
from atmanrl.rollouts import Completion, Sampler


class Speaker(Sampler):
    def __init__(self, text: str) -> None:
        self.text = text

    def sample(self, policy, prompts, uniforms, options):
        ids = policy.tokenizer(self.text, add_special_tokens=False).input_ids
        return [[Completion(ids, [-1.0] * len(ids), True)] * uniforms.shape[1] for _ in prompts]
'''
LINES = re.search(r"```python\n# lines\.py\n(.*?)```", (ROOT / "docs/delimiters.md").read_text(), re.DOTALL)[1]
"""The splitter that the documentation shows."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a user's splitter and a sampler in it."""
    assert len(LINES.strip().splitlines()) <= 30
    (tmp_path / "lines.py").write_text(LINES)
    (tmp_path / "speaking.py").write_text(SPEAKER)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(folder, tiny_folder, delimiter: str, text: str, *more: str) -> list[dict]:
    """One update and an evaluation in which the policy says `text`; its rollouts."""
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    options = config["data"]["init_args"]
    options["sampler"] = {"class_path": "speaking.Speaker", "init_args": {"text": text}}
    del options["task"]["init_args"]["instruction"]
    options["task"]["init_args"] |= {"train_size": 20, "test_size": 5}
    (folder / "own.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        "fit", "--config=own.yaml", "--trainer.default_root_dir=run", f"--model.policy.path={tiny_folder}",
        "--trainer.max_steps=1", "--data.queries_per_device=2", "--data.group_size=2", f"--data.delimiter={delimiter}",
        "--trainer.val_check_interval=1", "--data.val_problems=1", "--data.eval_samples=1",
        "--model.rewards.saliency.probe.solver.steps=10", *more,
    ]  # fmt: skip
    assert main(arguments) == 0
    return [json.loads(line) for line in (folder / "run/rollouts/update_00001.jsonl").read_text().splitlines()]


def setting(folder) -> dict:
    return json.loads((folder / "run/eval/validation_00001.json").read_text())["setting"]


def test_an_update_with_words_as_the_delimiter(folder, tiny_folder):
    rows = fit(
        folder, tiny_folder, "The answer is", "2 + 2 = 4.\nThe answer is 4.", "--model.rewards.saliency.weight=1.0"
    )
    for row in rows:
        assert (row["cot"], row["answer"], row["delimiter"]) == ("2 + 2 = 4.\n", "4.", "The answer is")
        assert row["rewards"]["saliency"] is not None and len(row["saliency"]) == row["cot_tokens"] > 0
        assert "for example: The answer is 42" in row["prompt"] and "#####" not in row["prompt"]
    assert setting(folder)["delimiter"] == "The answer is"
    # the log can be probed as it is: each row says what split it
    assert main(["probe", f"--model={tiny_folder}", "--traces=run/rollouts/update_00001.jsonl", "--out=probed",
                 "--probe.solver=AdaptiveSolver", "--probe.solver.steps=2", "--device=cpu"]) == 0  # fmt: skip
    probed = [json.loads(line) for line in (folder / "probed/traces.jsonl").read_text().splitlines()]
    assert [row["cot"] for row in probed] == [row["cot"] for row in rows] and probed[0]["delimiter"] == "The answer is"


def test_a_users_splitter_in_an_empty_folder_runs_an_update(folder, tiny_folder, capsys):
    rows = fit(folder, tiny_folder, "lines.AnswerLine", "2 + 2 = 4.\na: 4\nI am sure.")
    for row in rows:
        assert (row["cot"], row["answer"]) == ("2 + 2 = 4.\n", "4")
        assert row["delimiter"] == {"class_path": "lines.AnswerLine"}
        assert row["rewards"]["saliency"] is not None and "in this example: A: 42" in row["prompt"]
    assert setting(folder)["delimiter"] == {"class_path": "lines.AnswerLine"}
    command = ["probe", f"--model={tiny_folder}", "--traces=run/rollouts/update_00001.jsonl", "--out=probed",
               "--probe.solver=AdaptiveSolver", "--probe.solver.steps=2", "--device=cpu"]  # fmt: skip
    assert main(command) == 1  # a file of data makes no code run
    assert "line 1: field 'delimiter' names lines.AnswerLine" in capsys.readouterr().err
    assert main([*command, "--delimiter=lines.AnswerLine"]) == 0
    assert json.loads((folder / "probed/summary.json").read_text())["probed"] == 4


def test_a_class_that_is_not_there_is_no_delimiter(folder, capsys):
    assert main(["fit", f"--config={ROOT / 'configs/laptop.yaml'}", "--data.delimiter=lines.AnswrLine"]) == 1
    assert "delimiter names lines.AnswrLine (--data.delimiter), but no Splitter" in capsys.readouterr().err


@pytest.fixture(scope="module")
def thinker(tiny_folder, tmp_path_factory):
    """The tiny policy with `</think>` as a special token of its own."""
    folder = tmp_path_factory.mktemp("thinker")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CASES = {
    "</think>": ("</think>", "</think> {}", "</think>"),
    "boxed": (BoxedSplitter(), "\\boxed{{{}}}.", {"class_path": "BoxedSplitter"}),
}


@pytest.mark.parametrize("case", CASES)
def test_explain_and_probe_measure_the_same(thinker, tmp_path, case):
    delimiter, ending, name = CASES[case]
    cot = " 3 + 4 = 7.\n"
    solver = PaperSolver(steps=4)
    found = explain(str(thinker), None, "3 + 4?", cot, "7", delimiter=delimiter, solver=solver, device="cpu")
    opening = "</think> 7" if case == "</think>" else "\\boxed{7"
    assert found.cot == cot and "".join(found.rows) == cot + opening
    assert (case == "</think>") == ("</think>" in found.rows)
    assert found.to_json()["delimiter"] == found.settings["delimiter"] == name
    rows = [
        {"prompt": "3 + 4?", "completion": cot + ending.format(9), "gold": "7"},
        {"prompt": "3 + 4?", "cot": cot.rstrip(), "gold": "7"},
        {"prompt": "3 + 4?", "completion": "no answer at all ##### 7", "gold": "7"},
        found.to_json(),
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = name if isinstance(name, str) else name["class_path"]
    assert main(["probe", f"--model={thinker}", f"--traces={tmp_path / 't.jsonl'}", f"--out={tmp_path / 'out'}",
                 f"--delimiter={text}", "--probe.solver=PaperSolver", "--probe.solver.steps=4", "--batch_size=1",
                 "--device=cpu"]) == 0  # fmt: skip
    results = [json.loads(line) for line in (tmp_path / "out/traces.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert [row["line"] for row in results] == [1, 2, 4]
    opening = "</think>" if case == "</think>" else "\\boxed{"
    assert summary["without_saliency"] == [{"line": 3, "reason": f"the completion has no delimiter {opening}."}]
    for row in results:
        assert row["rewards"]["saliency"] == found.reward and row["saliency"] == list(found.saliency)
        assert row["cot"] == "".join(row["pieces"]) == cot and row["delimiter"] == name


def test_the_default_leaves_no_note(tiny_folder, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps({"prompt": "3 + 4?", "cot": "3 + 4 = 7.", "gold": "7"}))
    assert main(["probe", f"--model={tiny_folder}", f"--traces={tmp_path / 't.jsonl'}", f"--out={tmp_path / 'out'}",
                 "--probe.solver=AdaptiveSolver", "--probe.solver.steps=2", "--device=cpu"]) == 0  # fmt: skip
    for name in ("traces.jsonl", "summary.json"):
        assert "delimiter" not in (tmp_path / "out" / name).read_text()


def test_explain_refuses_a_reasoning_that_would_be_cut(thinker):
    with pytest.raises(UserError, match="the cot contains the delimiter </think>"):
        explain(str(thinker), None, "?", "3</think> 4", "7", delimiter="</think>", device="cpu")
    kept = explain(str(thinker), None, "?", "\\boxed{3} no", "7", delimiter=BoxedSplitter(), solver=PaperSolver(steps=2),
                   device="cpu")  # fmt: skip
    assert kept.cot.strip() == "\\boxed{3} no"
