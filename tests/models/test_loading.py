"""What a folder in Hugging Face format may lack, hold besides, or ask for, and what is made of it."""

import json
import pickle
import re
import shutil

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from atmanrl import explain
from atmanrl.__main__ import main
from atmanrl.models.modes import plain_outputs
from atmanrl.models.policy import Policy, PolicyError


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny policy's folder, to be spoiled."""
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def rewrite(folder, change) -> None:
    """Change the names and the weights of a folder."""
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def configure(folder, file="config.json", **options) -> None:
    settings = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(settings | options))


def refusal(folder, **options) -> str:
    with pytest.raises(PolicyError) as caught:
        Policy(str(folder), **options).build()
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


def prefixed(weights):
    return {f"policy.{name}": weight for name, weight in weights.items()}


def without_a_layer(weights):
    return {name: weight for name, weight in weights.items() if ".layers.1." not in name}


def with_more(weights):
    return weights | {"value_head.weight": torch.ones(2)}


def of_another_shape(weights):
    return weights | {"model.norm.weight": torch.ones(5)}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (
            prefixed,
            ["lm_head.weight, model.embed_tokens.weight", "18 more are missing", "all names begin with 'policy.'"],
        ),
        (without_a_layer, ["model.layers.1.input_layernorm.weight", "and 6 more are missing and drawn anew"]),
        (with_more, ["value_head.weight is left over"]),
        (of_another_shape, ["model.norm.weight has shape [5] instead of [32]"]),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(copied, capsys, change, names):
    rewrite(copied, change)
    message = refusal(copied)
    assert all(name in message for name in names) and "policy.strict=false" in message, message
    assert Policy(str(copied), strict=False).build().model is not None
    assert all(name in capsys.readouterr().err for name in names[:1])


def test_every_command_refuses_them(copied, tmp_path, capsys):
    rewrite(copied, without_a_layer)
    with pytest.raises(PolicyError, match="missing and drawn anew"):
        explain(str(copied), None, "1 + 1?", " 1 + 1 = 2.", "2")
    (tmp_path / "traces.jsonl").write_text('{"prompt": "1 + 1?", "cot": " 2.", "gold": "2"}\n')
    assert (
        main(["probe", f"--model={copied}", f"--traces={tmp_path / 'traces.jsonl'}", f"--out={tmp_path / 'out'}"]) == 1
    )
    assert "missing and drawn anew" in capsys.readouterr().err


def test_tied_weights_are_not_missing(tiny_folder, copied):
    configure(copied, tie_word_embeddings=True)
    rewrite(copied, lambda weights: {name: w for name, w in weights.items() if name != "lm_head.weight"})
    model = Policy(str(copied)).build().model
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda data: data[: len(data) // 2], "is cut off or damaged"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (lambda data: b"", "is cut off or damaged"),
    ],
    ids=["half", "pointer", "empty"],
)
def test_a_file_of_weights_that_cannot_be_read(copied, harm, says):
    file = copied / "model.safetensors"
    file.write_bytes(harm(file.read_bytes()))
    assert f"{file} {says}" in refusal(copied)


@pytest.mark.parametrize("kind", ["archive", "pickle"])
def test_every_command_refuses_a_pickle_of_somebody_else(copied, tmp_path, capsys, kind):
    (copied / "model.safetensors").unlink()
    if kind == "archive":
        torch.save({"model.norm.weight": print}, copied / "pytorch_model.bin")
    else:
        (copied / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": print}))
    file = copied / "pytorch_model.bin"
    said = f"no model could be loaded from '{copied}': {file} cannot be read: it holds more than tensors"
    with pytest.raises(PolicyError, match=re.escape(said)):
        explain(str(copied), None, "1 + 1?", " 1 + 1 = 2.", "2")
    (tmp_path / "traces.jsonl").write_text('{"prompt": "1 + 1?", "cot": " 2.", "gold": "2"}\n')
    assert (
        main(["probe", f"--model={copied}", f"--traces={tmp_path / 'traces.jsonl'}", f"--out={tmp_path / 'out'}"]) == 1
    )
    config = ROOT / "configs/laptop_baseline.yaml"
    folder = f"--trainer.default_root_dir={tmp_path / 'run'}"
    small = "--data.task.train_size=120"
    assert main(["fit", f"--config={config}", f"--model.policy.path={copied}", folder, small]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"atmanrl: error: {said}") for line in lines), lines


def test_a_tokenizer_that_is_a_pointer(copied):
    (copied / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a Git LFS pointer and not the tokenizer" in refusal(copied)


def test_a_mistyped_folder(tmp_path):
    for path in (tmp_path / "polcy", "./polcy", "../polcy", "polcy/", "po lcy", "~/polcy"):
        said = refusal(path)
        assert "there is no such folder" in said and "Repo id" not in said


def test_padding_and_ends_beyond_the_embedding(copied, tmp_path):
    configure(copied, pad_token_id=5000)
    configure(copied, "generation_config.json", pad_token_id=5000, eos_token_id=[2, 9000])
    policy = Policy(str(copied)).build()
    policy.tokenizer.pad_token_id = 5000
    policy = Policy.around(policy.model, policy.tokenizer)
    assert policy.pad_id == 2 and policy.eos_ids == (2,)
    policy.save(tmp_path / "saved")
    configure(copied, "generation_config.json", eos_token_id=9000)
    assert "beyond the model's 768 tokens" in refusal(copied)


@pytest.mark.parametrize(
    "option",
    [{"output_attentions": True}, {"output_hidden_states": True}, {"use_cache": False}, {"return_dict": False}],
)
def test_what_a_configuration_asks_of_a_forward_pass(copied, tmp_path, option):
    """Also without a generation configuration, which is then made of it and must be fit to be saved."""
    configure(copied, **option)
    (copied / "generation_config.json").unlink()
    policy = Policy(str(copied)).build()
    output = policy.model(torch.arange(3, 9)[None])
    assert output.logits.shape == (1, 6, 768) and output.past_key_values is not None
    assert output.hidden_states is None and output.attentions is None
    policy.save(tmp_path / "saved")
    assert torch.equal(Policy(str(tmp_path / "saved")).build().model(torch.arange(3, 9)[None]).logits, output.logits)


def test_a_generation_configuration_that_could_not_be_saved_is_refused_before_training(copied):
    configure(copied, "generation_config.json", num_return_sequences=4, do_sample=False)
    assert "num_return_sequences" in refusal(copied)


def test_a_loaded_model_is_explained_whatever_it_returns_and_left_as_it_was(tiny_policy):
    from atmanrl.probe.solvers import PaperSolver

    text = (tiny_policy.tokenizer, "1 + 1?", " 1 + 1 = 2.", "2")
    expected = explain(tiny_policy.model, *text, solver=PaperSolver(steps=2))
    model = tiny_policy.model
    model.config.return_dict, model.config.use_cache = False, False
    assert explain(model, *text, solver=PaperSolver(steps=2)).saliency == expected.saliency
    assert (model.config.return_dict, model.config.use_cache) == (False, False)
    assert explain(torch.compile(model), *text, solver=PaperSolver(steps=2)).saliency == expected.saliency
    with plain_outputs(model.config):
        assert model.config.return_dict
    assert not model.config.return_dict


def test_code_of_a_drawn_model_is_asked_for_by_the_same_option(copied, monkeypatch):
    from transformers import AutoModelForCausalLM

    asked = []

    def from_config(config, **options):
        asked.append(options)
        raise ValueError("asked")

    monkeypatch.setattr(AutoModelForCausalLM, "from_config", from_config)
    with pytest.raises(PolicyError, match="asked"):
        Policy(str(copied), pretrained=False, trust_remote_code=True).build()
    assert asked[0]["trust_remote_code"] is True
