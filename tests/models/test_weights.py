"""Two sets of weights are compared by name and shape, and the first difference is named."""

import pytest
import torch

from atmanrl.models.weights import difference

OWN = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (OWN, None),
        ({"a": OWN["a"]}, "b is missing"),
        ({"a": torch.zeros(3, 2), "b": OWN["b"]}, "a has shape [3, 2] instead of [2, 3]"),
        (OWN | {"c": torch.zeros(1)}, "c is unknown"),
    ],
)
def test_the_first_difference_is_named(weights, sentence):
    assert difference(weights, OWN) == sentence
