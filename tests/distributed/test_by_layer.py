"""Weights gathered one layer at a time, on two processes, against the same policy on one; and what is refused."""

from pathlib import Path

import pytest
import torch
from launch import launch
from layers import solved, targets

from atmanrl.distributed import FSDP2Strategy
from atmanrl.errors import UserError
from atmanrl.models.policy import Policy


@pytest.fixture(scope="module")
def deep_folder(tmp_path_factory, tiny_folder) -> Path:
    """A random Llama of four layers, so that a layer is a small part of it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder, config = tmp_path_factory.mktemp("deep"), AutoConfig.from_pretrained(tiny_folder)
    config.update({"num_hidden_layers": 4, "intermediate_size": 192, "layer_types": None})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two(deep_folder, tmp_path_factory) -> list[dict]:
    out = tmp_path_factory.mktemp("found")
    # each layer is a meeting of the processes, which on busy cores wait for their turns
    launch(Path(__file__).with_name("layers.py"), deep_folder, out)
    return [torch.load(out / f"layers{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_with_different_work_find_what_one_finds(two, deep_folder, rank):
    expected = solved(Policy(str(deep_folder), dtype="float64").build(), targets(rank))
    for solver in ("paper", "adaptive"):
        saliency, reward, gradients = two[rank][solver]
        assert torch.allclose(reward, expected[solver][1], rtol=0, atol=1e-7)
        assert gradients.tolist() == expected[solver][2].tolist()
        for ours, theirs in zip(saliency, expected[solver][0], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-6)
    assert torch.allclose(two[rank]["logits"], expected["logits"], rtol=0, atol=1e-12)
    assert two[rank]["sampled"][0][0].ids[:3] == expected["sampled"][0][0].ids[:3]


def test_a_full_copy_has_no_room_where_layers_have(two):
    for found in two:
        assert found["refused"] == "no room for a full copy"
        assert found["peak"] < 0.7 * found["size"] and found["after"] == 0


def test_processes_meet_in_a_collective_and_leave_the_policy_as_it_was(two):
    for found in two:
        assert found["met"] == [0, 1] and found["restored"] and found["learning"]


def test_another_way_of_gathering_is_refused():
    with pytest.raises(UserError, match="gather is 'half'; choose model or layer"):
        FSDP2Strategy(gather="half")
