"""GGUF files: one that is written here by the format's own library, and what is no such file."""

import shutil

import pytest
import torch
from tiny_gguf import TEMPLATE, TOKENS, tiny_llama, write
from transformers import AutoTokenizer

from atmanrl.models.policy import Policy, PolicyError


@pytest.fixture(scope="module")
def model():
    return tiny_llama()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write(model, path)
    return path


def logits(policy_model):
    ids = torch.tensor([[1, 40, 7, 98, 12, 2]])
    with torch.no_grad():
        return policy_model(ids).logits


def test_a_gguf_file_is_the_model_that_was_written(model, file):
    policy = Policy(str(file)).build()
    torch.testing.assert_close(logits(policy.model), logits(model), rtol=0, atol=1e-5)
    assert policy.eos_ids == (2,) and policy.context_length == 128
    assert policy.encode_prompt("he is") == [1, *(TOKENS.index(t) for t in ("he", "Ġ", "i", "s")), 2]


def test_a_folder_with_one_gguf_file_names_it_and_one_with_two_must_say_which(file, tmp_path):
    shutil.copy(file, tmp_path / "a.gguf")
    assert Policy(str(tmp_path)).build().vocabulary_size == len(TOKENS)
    shutil.copy(file, tmp_path / "b.gguf")
    with pytest.raises(PolicyError, match=r"holds 2 GGUF files; give the path of one of them, such as .*a\.gguf\.$"):
        Policy(str(tmp_path)).build()


def test_quantized_weights_are_unpacked_can_be_trained_and_are_saved_as_an_ordinary_model(model, tmp_path):
    expected = write(model, tmp_path / "tiny.gguf", "Q4_1")
    policy = Policy(str(tmp_path / "tiny.gguf")).build()
    weights = dict(policy.model.named_parameters())
    for name, size in expected.items():  # a permutation of rows changes no sum
        assert weights[name].requires_grad and weights[name].dtype == torch.float32
        assert float(weights[name].detach().abs().double().sum()) == pytest.approx(size, rel=1e-5), name
    policy.save(tmp_path / "saved")
    again = Policy(str(tmp_path / "saved")).build()
    assert torch.equal(logits(again.model), logits(policy.model))
    assert again.encode_prompt("he is") == policy.encode_prompt("he is")
    assert "quantization_config" not in (tmp_path / "saved/config.json").read_text()
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").chat_template == TEMPLATE


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b"no model"), "tokenizer could be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "could be loaded"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3000]), "could be loaded"),
        (lambda path: path.unlink(), "there is no such file"),
    ],
)
def test_what_is_no_whole_gguf_file_is_refused_in_a_sentence(file, tmp_path, spoil, reason):
    path = tmp_path / "spoiled.gguf"
    shutil.copy(file, path)
    spoil(path)
    with pytest.raises(PolicyError, match=reason) as caught:
        Policy(str(path)).build()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_without_the_packages_that_read_it_the_error_names_the_extra(file, monkeypatch):
    monkeypatch.setattr("atmanrl.models.gguf.find_spec", lambda name: None)
    with pytest.raises(PolicyError, match=r"needs gguf and accelerate: pip install 'atmanrl\[gguf\]'"):
        Policy(str(file)).build()
