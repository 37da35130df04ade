"""`explain` from a question alone: the model writes the reasoning, which is split and probed as any other."""

import json

import pytest
import torch
from conftest import ROOT

from atmanrl import explain
from atmanrl.__main__ import main
from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.probe import PaperSolver, writing
from atmanrl.rollouts import BoxedSplitter, Completion
from atmanrl.rollouts.sampling import sample
from atmanrl.views import trace_text

QUICK = PaperSolver(steps=2)
LAPTOP = str(ROOT / "experiments/laptop/policy")
QUESTION = "Tom has 3 apples and buys 4. How many apples does he have?"


@pytest.fixture
def model_writes(tiny_policy, monkeypatch):
    """The tiny policy, which writes a text that a test names."""

    def policy_that_writes(text: str, finished: bool = True) -> Policy:
        ids = tiny_policy.tokenizer(text, add_special_tokens=False).input_ids + [tiny_policy.eos_ids[0]] * finished
        monkeypatch.setattr(writing, "sample", lambda *args, **options: [[Completion(ids, [], finished)]])
        return tiny_policy

    return policy_that_writes


def explained(policy, **options):
    return explain(policy.model, policy.tokenizer, QUESTION, solver=QUICK, **options)


def test_the_model_writes_by_its_likeliest_tokens(tiny_policy):
    written = writing.write(tiny_policy, tiny_policy.encode_prompt(QUESTION), 12, None)
    ids = tiny_policy.encode_prompt(QUESTION)
    for _ in range(len(written.ids)):
        ids.append(int(tiny_policy.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert tuple(ids[-len(written.ids) :]) == written.ids and 0 < len(written.ids) <= 12


def test_what_the_model_wrote_is_explained_as_if_it_were_given(model_writes):
    policy = model_writes(" 3 + 4 = 7.\n##### 8")
    own, with_gold = explained(policy), explained(policy, answer="7")
    given = explained(policy, cot=" 3 + 4 = 7.\n", answer="7")
    assert with_gold.saliency == given.saliency and with_gold.loss_final == given.loss_final
    assert (own.answer, own.own_answer, own.has_gold) == ("8", "8", False)
    assert (with_gold.answer, with_gold.own_answer, with_gold.has_gold) == ("7", "8", True)
    assert with_gold.completion == " 3 + 4 = 7.\n##### 8" and given.completion is None
    assert "answer 8 | tokens" in str(own) and "answer 8 | gold 7 | tokens" in str(with_gold)
    assert "gold" not in trace_text.plain(own.view) and "gold <b>" not in own._repr_html_()
    assert (with_gold.to_json()["answer"], with_gold.to_json()["gold"]) == ("8", "7")
    assert "answer" not in given.to_json()


@pytest.mark.parametrize(
    ("text", "cot", "answer"),
    [
        ("So 3 + 4. The answer is 7.", "So 3 + 4.", "7"),  # the space is a part of the token that follows
        (r"So 3 + 4 is \boxed{7}.", "So 3 + 4 is", "7"),
        ("<think>3 + 4</think>7", "<think>3 + 4", "7"),
    ],
)
def test_the_mark_of_the_answer_is_recognised(model_writes, text, cot, answer):
    explanation = explained(model_writes(text))
    assert (explanation.cot.rstrip(), explanation.own_answer) == (cot, answer)


def test_a_delimiter_that_is_given_is_taken(model_writes):
    policy = model_writes(r"So \boxed{7} or so. The answer is 8.")
    assert explained(policy, delimiter=BoxedSplitter()).own_answer == "7"
    assert explained(policy, delimiter="or").own_answer == "so. The answer is 8."


def test_without_a_mark_all_of_it_is_the_reasoning_of_the_gold_answer(model_writes, capsys):
    policy = model_writes("So he has seven", finished=False)
    explanation = explained(policy, answer="7")
    assert explanation.cot.strip() == "So he has seven" and explanation.own_answer is None
    assert explanation.saliency == explained(policy, cot="So he has seven", answer="7").saliency
    said = capsys.readouterr().err
    assert "nothing known marks an answer" in said and "cut off after" in said and "put behind #####" in said


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("So he has seven", {}, "ends in 'So he has seven'; give the gold answer"),
        ("##### 7", {}, "answered '7' without a reasoning"),
        ("", {"answer": "7"}, "the model wrote nothing"),
        ("x", {"max_new_tokens": 0}, "max_new_tokens is 0; give at least 1"),
        ("x", {"cot": "3 + 4"}, "answer is None: give the gold answer of the cot"),
    ],
)
def test_what_cannot_be_explained_says_why(model_writes, text, options, message):
    with pytest.raises(UserError) as caught:
        explained(model_writes(text), **options)
    assert message in str(caught.value)


def test_a_prompt_that_fills_the_context(tiny_policy):
    with pytest.raises(UserError, match="exceed the model's context of .*: the prompt leaves no room"):
        explain(tiny_policy.model, tiny_policy.tokenizer, "a " * 3000)


def test_the_command(tmp_path, capsys):
    files = [f"--{kind}={tmp_path / f'x.{kind}'}" for kind in ("html", "json")]
    options = ["--solver=AdaptiveSolver", "--solver.steps=2", "--device=cpu"]
    assert main(["explain", f"--model={LAPTOP}", f"--prompt={QUESTION}", "--gold=7", *files, *options]) == 0
    said, stored = capsys.readouterr().out, json.loads((tmp_path / "x.json").read_text())
    assert "saliency reward" in said and "| gold 7 |" in said and f"{tmp_path / 'x.html'} written." in said
    policy = Policy(LAPTOP).build()
    ids = policy.encode_prompt(QUESTION)
    ((completion,),) = sample(policy, [ids], torch.zeros(1, 1, 99, dtype=torch.float64), temperature=1e-4)
    text = policy.tokenizer.decode(completion.ids, skip_special_tokens=True)
    assert stored["cot"] == text.partition("#####")[0] and stored["answer"] == text.partition("#####")[2].strip()
    assert stored["cot"].rstrip() in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cot=##### 7", "--gold=7"], "the cot contains the delimiter"),
        (["--cot=3 + 4"], "answer is None"),
        (["--html=."], "is a folder; name a file"),
    ],
)
def test_the_commands_errors_are_one_sentence(capsys, options, message):
    assert main(["explain", f"--model={LAPTOP}", f"--prompt={QUESTION}", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: ") and message in error and error.count("\n") == 1
