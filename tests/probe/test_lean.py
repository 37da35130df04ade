"""Lean attention: what PyTorch's own gives, its gradients, and what it keeps in memory."""

import pytest
import torch

from atmanrl.errors import UserError
from atmanrl.probe import lean
from atmanrl.probe.lean import lean_attention


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
