"""Lean attention: what PyTorch's own gives, its gradients, and what it keeps in memory."""

from contextlib import nullcontext

import pytest
import torch

from atmanrl.errors import UserError
from atmanrl.models.logits import last_layer_at
from atmanrl.probe import lean
from atmanrl.probe.lean import constant_past, lean_attention


def drawn(dtype=torch.float64, heads=6, rows=5, keys=7):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, rows, 8), (2, 3, keys, 8), (2, 3, keys, 4), (2, 1, rows, keys)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


def attention(query, key, value, bias, **options):
    return lean_attention(torch.nn.Identity(), query, key, value, bias, **options)[0]


@pytest.fixture(params=[2**21, 0], ids=["kept", "again"])
def keep(request, monkeypatch):
    """Probabilities kept for the backward pass, or computed again in it."""
    monkeypatch.setattr(lean, "KEEP", request.param)
    return request.param


@pytest.mark.parametrize("scaling", [None, 0.7])
def test_equals_pytorchs(keep, scaling):
    inputs = drawn()
    found = attention(*inputs, scaling=scaling)
    expected = torch.nn.functional.scaled_dot_product_attention(*inputs, scale=scaling, enable_gqa=True)
    torch.testing.assert_close(found, expected.transpose(1, 2), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *x: attention(*x, scaling=scaling), inputs)


@pytest.mark.parametrize("wanted", [(3,), (0, 3), (1,), (2,)])
def test_gradients_of_some_inputs_alone(keep, wanted):
    inputs = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(drawn())]
    weight = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    some = torch.autograd.grad((attention(*inputs) * weight).sum(), [inputs[i] for i in wanted])
    whole = drawn()
    every = torch.autograd.grad((attention(*whole) * weight).sum(), whole)
    for found, i in zip(some, wanted, strict=True):
        torch.testing.assert_close(found, every[i], rtol=1e-12, atol=1e-12)


def test_a_constant_past_has_no_gradient_and_changes_no_other(keep):
    """Keys 0 and 1 come from a cache: five rows attend to seven keys."""
    weight, found = torch.randn(2, 5, 6, 4, dtype=torch.float64), []
    for context in (nullcontext(), constant_past()):
        inputs = drawn()
        with context:
            out = attention(*inputs)
        found.append((out, *torch.autograd.grad((out * weight).sum(), inputs)))
    for i, (every, some) in enumerate(zip(*found, strict=True)):
        if i in (2, 3):
            assert some[:, :, :2].abs().max() == 0 and every[:, :, :2].abs().max() > 0
            every, some = every[:, :, 2:], some[:, :, 2:]
        torch.testing.assert_close(some, every, rtol=1e-12, atol=1e-12)


class Decoder(torch.nn.Module):
    """As much of a model as `last_layer_at` looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.ModuleDict() for _ in range(2))
        for layer in self.layers:
            layer.self_attn, layer.mlp = torch.nn.Identity(), torch.nn.Identity()

    @property
    def base_model(self):
        return self


def test_the_last_layers_attention_is_computed_where_it_is_wanted(keep):
    model, where = Decoder(), torch.zeros(2, 5, dtype=torch.bool)
    where[0, 2], where[1, 3:] = True, True
    weight = torch.randn(2, 5, 6, 4, dtype=torch.float64) * where[:, :, None, None]
    found = []
    for layer in model.layers:
        inputs = drawn()
        with last_layer_at(model, where):
            out = lean_attention(layer.self_attn, *inputs)[0]
        found.append((out * where[:, :, None, None], *torch.autograd.grad((out * weight).sum(), inputs)))
        skipped = int((out == 0).all(-1).all(-1).sum())
        assert skipped == (0 if layer is model.layers[0] else 6)  # two rows of each batch entry are computed
    for every, some in zip(*found, strict=True):
        torch.testing.assert_close(some, every, rtol=1e-12, atol=1e-12)


def test_bfloat16_is_as_near_as_bfloat16_is(keep):
    inputs, exact = drawn(torch.bfloat16), drawn()
    weight = torch.ones(2, 5, 6, 4)
    found = torch.autograd.grad((attention(*inputs) * weight).sum(), inputs)
    expected = torch.autograd.grad((attention(*exact) * weight).sum(), exact)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).abs().max() < 0.05 * b.abs().max() + 0.02


def test_probabilities_are_kept_only_where_they_are_few(keep):
    inputs, sizes = drawn(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        attention(*inputs)
    assert (2 * 6 * 5 * 7 in sizes) == (keep > 0)


@pytest.mark.parametrize(
    ("options", "what"),
    [({"softcap": 5.0}, "softcap"), ({"s_aux": torch.ones(6)}, "s_aux"), ({"dropout": 0.1}, "dropout")],
)
def test_other_kinds_of_attention_are_refused(options, what):
    with pytest.raises(UserError, match=f"Identity needs what lean attention does not have \\({what}\\); take eager"):
        attention(*drawn(), **options)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, 5, 7, dtype=torch.bool)])
def test_a_mask_that_is_no_bias_is_refused(mask):
    with pytest.raises(UserError, match="no float mask"):
        attention(*drawn()[:3], mask)
