"""The copy of the weights that sampling and the probe read in mixed precision, on one device."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from atmanrl.distributed import gathered, inference_copy
from atmanrl.models.policy import LoRA, Policy

IDS = torch.arange(3, 15)[None]


@pytest.fixture
def policy(tiny_folder) -> Policy:
    """float32 weights, to be computed in bfloat16."""
    policy = Policy(str(tiny_folder)).build()
    policy.computed_in = torch.bfloat16
    return policy


def test_the_copy_is_the_model_as_transformers_loads_it_in_that_dtype(policy, tiny_folder):
    expected = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16)(IDS).logits
    with torch.autocast("cpu", torch.bfloat16), inference_copy(policy):
        logits = policy.model(IDS).logits
    assert logits.dtype == torch.bfloat16 and torch.equal(logits, expected)


def test_within_it_keys_and_values_are_narrow_and_nothing_is_cast(policy):
    with torch.autocast("cpu", torch.bfloat16):
        with inference_copy(policy):
            assert not torch.is_autocast_enabled("cpu")
            cache = policy.model(IDS, use_cache=True).past_key_values
        assert torch.is_autocast_enabled("cpu")
    assert {t.dtype for layer in cache.layers for t in (layer.keys, layer.values)} == {torch.bfloat16}


def test_the_policy_is_afterwards_what_it_was_and_the_copy_is_gone(policy):
    own, before = policy.model, {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    rotary = own.model.rotary_emb.inv_freq
    with inference_copy(policy), inference_copy(policy):
        copy = policy.model
        assert copy is not own and not any(weight.requires_grad for weight in copy.parameters())
        assert {weight.dtype for weight in copy.parameters()} == {torch.bfloat16}
        assert copy.model.rotary_emb.inv_freq is rotary and rotary.dtype == torch.float32
    assert policy.model is own and all(weight.requires_grad for weight in own.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in own.state_dict().items())
    assert {weight.device.type for weight in copy.parameters()} == {"meta"}
    assert own.model.rotary_emb.inv_freq is rotary and rotary.device.type == "cpu"
    with torch.no_grad():
        own.lm_head.weight.mul_(2)
    with inference_copy(policy):
        assert policy.model is copy and torch.equal(copy.lm_head.weight, 2 * before["lm_head.weight"].bfloat16())


def test_an_error_within_gives_the_policy_back(policy):
    own = policy.model
    with pytest.raises(RuntimeError, match="within"), inference_copy(policy):
        raise RuntimeError("within")
    assert policy.model is own


def test_tied_weights_stay_tied(tiny_folder):
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(tiny_folder)
    config.update({"tie_word_embeddings": True})
    policy = Policy.around(AutoModelForCausalLM.from_config(config), AutoTokenizer.from_pretrained(tiny_folder))
    policy.computed_in = torch.bfloat16
    with inference_copy(policy):
        assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
        assert policy.model.lm_head.weight.dtype == torch.bfloat16


def test_a_copy_in_inference_mode_can_be_differentiated(policy):
    """As in validation, where the probe takes gradients."""
    with torch.inference_mode(), inference_copy(policy), torch.inference_mode(False), torch.enable_grad():
        embedded = policy.model.get_input_embeddings()(IDS).detach().requires_grad_()
        (slope,) = torch.autograd.grad(policy.model(inputs_embeds=embedded, use_cache=False).logits.sum(), embedded)
    assert slope.any()


def test_full_precision_reads_the_weights_themselves(tiny_folder):
    policy = Policy(str(tiny_folder)).build()
    own = policy.model
    with inference_copy(policy):
        assert policy.model is own
    policy.computed_in = torch.bfloat16
    with gathered(policy):  # which is for what must compute as the update does
        assert policy.model is own


def test_quantised_weights_are_left_alone(policy):
    own = policy.model
    own.hf_quantizer = object()
    with torch.autocast("cpu", torch.bfloat16), inference_copy(policy):
        assert policy.model is own and torch.is_autocast_enabled("cpu")


def test_weights_that_an_architecture_keeps_in_float32_stay_so(policy):
    policy.model._keep_in_fp32_modules_strict = ["norm"]
    with inference_copy(policy):
        kinds = {name: weight.dtype for name, weight in policy.model.named_parameters()}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {"model.norm.weight"}


def test_of_adapters_on_a_narrow_base_the_adapters_alone_are_copied(tiny_folder):
    pytest.importorskip("peft")
    policy = Policy(str(tiny_folder), dtype="bfloat16", lora=LoRA(r=2)).build()
    policy.computed_in = torch.bfloat16
    own = dict(policy.model.named_parameters())
    with inference_copy(policy):
        for name, weight in policy.model.named_parameters():
            assert weight.dtype == torch.bfloat16
            assert (weight.data_ptr() == own[name].data_ptr()) == ("lora_" not in name)
        assert policy.model(IDS).logits.isfinite().all()
    assert {name for name, weight in policy.model.named_parameters() if weight.requires_grad} == {
        name for name in own if "lora_" in name
    }
