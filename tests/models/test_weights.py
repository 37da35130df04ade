"""Two sets of weights are compared by name and shape, and the first difference is named."""

import pytest
import torch

from atmanrl.models.errors import PolicyError
from atmanrl.models.weights import check_same, first_difference

OWN = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}


@pytest.mark.parametrize(
    ("weights", "difference"),
    [
        (OWN, None),
        ({"a": OWN["a"]}, "b is missing"),
        ({"a": torch.zeros(3, 2), "b": OWN["b"]}, "a has shape [3, 2] instead of [2, 3]"),
        (OWN | {"c": torch.zeros(1)}, "c is unknown"),
    ],
)
def test_the_first_difference_is_named(weights, difference):
    assert first_difference(weights, OWN) == difference


def test_a_checkpoint_of_another_model_is_refused_with_the_models_name():
    with pytest.raises(PolicyError, match=r"^b is missing: the checkpoint is not of the model 'folder' with"):
        check_same({"a": OWN["a"]}, OWN, "folder")
