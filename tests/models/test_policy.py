"""Loading, encoding and saving a policy, and what is said when that cannot be done."""

import json
import shutil

import pytest
import torch

from atmanrl.models.policy import Policy, PolicyError


@pytest.fixture
def copied(tiny_folder, tmp_path):
    """A copy of the tiny policy's folder, to be spoiled."""
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def build_fails(path, *parts: str, **options) -> None:
    with pytest.raises(PolicyError) as caught:
        Policy(str(path), **options).build()
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in (str(path), *parts)), message


def test_nothing_is_loaded_before_it_is_built(tiny_folder):
    policy = Policy("/no/such/folder")
    assert policy.model is None and policy.tokenizer is None and not list(policy.parameters())
    policy = Policy(str(tiny_folder))
    assert policy.build() is policy
    model, tokenizer = policy.model, policy.tokenizer
    assert policy.build().model is model and policy.tokenizer is tokenizer
    assert policy.device.type == "cpu" and policy.context_length == 1024
    assert policy.eos_ids == (2,) and policy.pad_id == 0


def test_a_missing_folder(tmp_path):
    build_fails(tmp_path / "absent", "no tokenizer could be loaded")


def test_a_folder_without_tokenizer(copied):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (copied / file).unlink()
    build_fails(copied, "holds no tokenizer (tokenizer.json)", "copy")


def test_a_folder_without_weights(copied):
    (copied / "model.safetensors").unlink()
    build_fails(copied, "no model could be loaded")
    assert Policy(str(copied), pretrained=False).build().model is not None


def test_a_folder_without_configuration(copied):
    (copied / "config.json").unlink()
    build_fails(copied)


def test_flash_attention_on_a_cpu(tiny_folder):
    build_fails(tiny_folder, "no model could be loaded", "lash", attn_implementation="flash_attention_2")


def test_an_unknown_attention(tiny_folder):
    build_fails(tiny_folder, "no model could be loaded", "quick", attn_implementation="quick")


def test_a_failure_can_be_mended(copied):
    shutil.move(copied / "model.safetensors", copied / "aside")
    policy = Policy(str(copied))
    with pytest.raises(PolicyError):
        policy.build()
    shutil.move(copied / "aside", copied / "model.safetensors")
    assert policy.build().eos_ids == (2,)


def test_no_end_of_sequence(copied):
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        kept = {
            k: v for k, v in json.loads((copied / name).read_text()).items() if k not in ("eos_token_id", "eos_token")
        }
        (copied / name).write_text(json.dumps(kept | ({"eos_token_id": None} if name == "config.json" else {})))
    build_fails(copied, "end-of-sequence")


def test_several_ends_of_sequence_and_no_padding(copied):
    file, settings = copied / "generation_config.json", copied / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [2, 9]}))
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "pad_token"}))
    policy = Policy(str(copied)).build()
    assert policy.eos_ids == (2, 9) and policy.pad_id == 2


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_dtype_of_the_weights(tiny_folder, dtype):
    policy = Policy(str(tiny_folder), dtype=dtype, attn_implementation="eager").build()
    assert {p.dtype for p in policy.parameters()} == {getattr(torch, dtype)}
    assert policy.model.config._attn_implementation == "eager"
    assert policy.dtype_name == dtype


def test_new_weights_come_from_the_random_state(tiny_folder):
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        policy = Policy(str(tiny_folder), pretrained=False, dtype="float64").build()
        assert {p.dtype for p in policy.parameters()} == {torch.float64}
        return torch.cat([p.detach().flatten() for p in policy.parameters()])

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_a_reply_continues_the_prompt(tiny_policy):
    prompt, reply = tiny_policy.encode_turn("What is 3 + 4?", "3 + 4 = 7.\n##### 7")
    assert prompt == tiny_policy.encode_prompt("What is 3 + 4?") and prompt[0] == 1
    decode = tiny_policy.tokenizer.decode
    assert decode(prompt) == "<s>Question: What is 3 + 4?\nReasoning:"
    assert reply[-1] == 2 and decode(reply[:-1]) == " 3 + 4 = 7.\n##### 7"


def test_a_reply_without_chat_template(tiny_policy):
    tiny_policy.tokenizer.chat_template = None
    prompt, reply = tiny_policy.encode_turn("3 + 4 =", "7")
    assert prompt == tiny_policy.encode_prompt("3 + 4 =") == tiny_policy.tokenizer("3 + 4 =").input_ids
    assert tiny_policy.tokenizer.decode(prompt + reply) == "3 + 4 = 7</s>"


def test_a_chat_template_that_rewrites_the_prompt(tiny_policy):
    tiny_policy.tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    with pytest.raises(PolicyError, match="the chat template changes the user's turn"):
        tiny_policy.encode_turn("3 + 4 =", "7")


def test_what_is_saved_is_loaded(tiny_policy, tmp_path):
    with torch.no_grad():
        tiny_policy.model.model.layers[0].mlp.up_proj.weight.add_(0.1)
    tiny_policy.save(tmp_path / "saved")
    back = Policy(str(tmp_path / "saved"), dtype="float64").build()
    ours, theirs = tiny_policy.model.state_dict(), back.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    text = "3 + 4 = 7 \u00e9"
    assert back.encode_turn(text, text) == tiny_policy.encode_turn(text, text)
    assert (back.eos_ids, back.pad_id) == (tiny_policy.eos_ids, tiny_policy.pad_id)
    assert any((tmp_path / "saved").glob("*.safetensors"))


def test_a_policy_is_saved_in_another_dtype(tiny_policy, tmp_path):
    tiny_policy.save(tmp_path / "half", dtype="bfloat16")
    assert {p.dtype for p in tiny_policy.parameters()} == {torch.float64}
    assert json.loads((tmp_path / "half/config.json").read_text())["dtype"] == "bfloat16"
    back = Policy(str(tmp_path / "half"), dtype="bfloat16").build()
    for ours, theirs in zip(tiny_policy.parameters(), back.parameters(), strict=True):
        assert torch.equal(ours.to(torch.bfloat16), theirs)


def test_checkpointed_layers_give_the_same_gradient_with_fewer_kept_activations(tiny_folder):
    def kept_and_gradients(**options):
        policy = Policy(str(tiny_folder), dtype="float64", **options).build()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            loss = policy.model(torch.arange(3, 40)[None], use_cache=False).logits.square().mean()
        loss.backward()
        return sum(kept), [p.grad for p in policy.parameters()], policy

    much, expected, _ = kept_and_gradients()
    little, found, policy = kept_and_gradients(activation_checkpointing=True)
    assert little < 0.75 * much
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    policy.model.requires_grad_(False)  # as in the probe: nothing learns, and so nothing is computed twice
    embedded = policy.model.get_input_embeddings()(torch.arange(3, 40)[None]).requires_grad_()
    policy.model(inputs_embeds=embedded, use_cache=False).logits.sum().backward()
    assert embedded.grad is not None
