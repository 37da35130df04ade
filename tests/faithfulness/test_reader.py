"""Another policy that reads the reasoning."""

import math

import brute_force
import pytest
import torch
from hand_built import rollout

from atmanrl.errors import UserError
from atmanrl.faithfulness import Reader
from atmanrl.faithfulness import reader as readers
from atmanrl.rollouts import RolloutBatch


@pytest.fixture
def reading(monkeypatch):
    """Gives the reader of a path without loading it."""
    policies = {}
    monkeypatch.setattr(readers, "_reader", lambda path, device: policies[path])
    return policies


def test_the_reader_answers_and_reads_token_by_token(tiny_policy, rollouts, reading):
    reading["warm start"] = tiny_policy
    metric = Reader("warm start")
    measured = metric.measure(rollouts, tiny_policy)
    for k in (0, 1):
        prompt, cot, delimiter = brute_force.parts(tiny_policy, rollouts[k])
        logs = brute_force.distributions(tiny_policy, [*prompt, *cot])[len(prompt) - 1 : -1]
        nats = -sum(float(row[token]) for row, token in zip(logs, cot, strict=True)) / len(cot)
        assert measured["cot_nats"][k] == pytest.approx(nats, rel=1e-6)
        for key, text in (("reader_accuracy", "7"), ("reader_agreement", rollouts[k].parts.answer)):
            assert measured[key][k] == brute_force.answer(tiny_policy, [*prompt, *cot, *delimiter], text)[1]
    assert math.isnan(measured["cot_nats"][2]) and math.isnan(measured["reader_accuracy"][3])
    metric.update(RolloutBatch(rollouts, 1), tiny_policy)
    values = metric.compute()
    assert float(values["cot_perplexity"]) == pytest.approx(math.exp(sum(measured["cot_nats"][:2]) / 2), rel=1e-5)


def test_a_reader_of_reasonings_reads_another_policys_answer_there(reader_of_prompt, reader_of_reasoning, reading):
    reading["reader"] = reader_of_reasoning
    spoken, silent = (rollout(reader_of_prompt, "a7", f" it is {n}\n##### 7", "7") for n in (7, 3))
    measured = Reader("reader").measure([spoken, silent], reader_of_prompt)
    assert measured["reader_accuracy"] == measured["reader_agreement"] == [1, 0]


def test_a_reader_of_another_vocabulary_is_given_the_text(tiny_policy, rollouts, reading, monkeypatch):
    reading["warm start"] = tiny_policy
    plain = Reader("warm start").measure(rollouts, tiny_policy)
    read = []
    monkeypatch.setattr(readers, "_retokenized", lambda one, reader: read.append(one) or one)

    class Other:
        device = torch.device("cpu")
        tokenizer = type("Tokenizer", (), {"get_vocab": staticmethod(lambda: {"a": 0})})

    assert str(Reader("warm start").measure(rollouts, Other())) == str(plain) and read == rollouts


def test_the_text_in_other_tokens_is_the_same_text(tiny_policy, rollouts):
    again = readers._retokenized(rollouts[0], tiny_policy)
    assert again.parts.text == rollouts[0].parts.text and again.prompt_ids == rollouts[0].prompt_ids
    assert again.problem.gold == "7" and again.parts.answer == rollouts[0].parts.answer


def test_a_reader_needs_a_name():
    with pytest.raises(UserError, match="Reader.path is empty"):
        Reader("")
