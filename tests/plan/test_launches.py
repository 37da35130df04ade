"""How many kernels a step of sampling starts, counted where PyTorch calls them."""

import pytest
import torch
from conftest import BLANK
from test_shape_and_flops import tiny
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer

from atmanrl.models.policy import Policy
from atmanrl.plan import launches
from atmanrl.rollouts.sampling import sample

NO_KERNEL = {
    "view", "_unsafe_view", "transpose", "t", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "alias",
    "empty", "empty_like", "new_empty", "lift_fresh", "as_strided", "split", "permute", "_local_scalar_dense",
}  # fmt: skip


class Calls(TorchDispatchMode):
    """Counts the operations that do something."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in NO_KERNEL
        return function(*args, **(kwargs or {}))


def calls_of_a_step(layers: int) -> float:
    """By the difference of two lengths, so that what is done once drops out."""
    model = AutoModelForCausalLM.from_config(tiny(num_hidden_layers=layers)).bfloat16()
    policy = Policy.around(model, AutoTokenizer.from_pretrained(BLANK))
    policy.eos_ids = (-1,)
    counts = []
    for tokens in (10, 20):
        with Calls() as calls:
            sample(policy, [[3, 4, 5], [6, 7, 8]], torch.rand(2, 2, tokens))
        counts.append(calls.count)
    return (counts[1] - counts[0]) / 10


def test_kernels_of_a_layer_and_of_a_step_are_those_that_pytorch_calls():
    few, many = calls_of_a_step(2), calls_of_a_step(6)
    layer = (many - few) / 4
    assert layer == pytest.approx(launches.PER_LAYER, rel=0.1)
    assert few - 2 * layer == pytest.approx(launches.PER_PASS, rel=0.25)
