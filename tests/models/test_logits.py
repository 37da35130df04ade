"""Logits where they are needed are the logits of a whole forward pass, and the model is left as it was."""

import pytest
import torch

from atmanrl.models.batching import positions
from atmanrl.models.logits import head_at, last_layer_at, logits_at


@pytest.fixture
def inputs(tiny_policy):
    torch.manual_seed(0)
    ids = torch.randint(4, 700, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    where = (torch.rand(3, 9) < 0.4) & mask.bool()
    where[0, 0] = True
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask), "use_cache": False}, where


def hooks(model):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_selected_logits_and_their_gradients_are_those_of_the_whole_pass(tiny_policy, inputs):
    arguments, where = inputs
    model = tiny_policy.model
    weights = [p for p in model.parameters() if p.requires_grad]
    whole = model(**arguments).logits[where]
    some = logits_at(model, where, **arguments)
    torch.testing.assert_close(some, whole, rtol=0, atol=1e-12)
    target = torch.randn_like(whole)
    for a, b in zip(*(torch.autograd.grad((x * target).sum(), weights) for x in (whole, some)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    assert hooks(model) == 0


def test_hooks_are_removed_when_a_pass_fails(tiny_policy, inputs):
    _, where = inputs
    with (
        pytest.raises(RuntimeError, match="stop"),
        head_at(tiny_policy.model, where),
        last_layer_at(tiny_policy.model, where),
    ):
        assert hooks(tiny_policy.model) == 3
        raise RuntimeError("stop")
    assert hooks(tiny_policy.model) == 0


def test_the_last_layer_works_only_where_it_is_asked_to(tiny_policy, inputs):
    arguments, where = inputs
    seen = []
    part = tiny_policy.model.model.layers[-1].mlp.down_proj
    handle = part.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape[1]))
    logits_at(tiny_policy.model, where, **arguments)
    handle.remove()
    assert seen == [int(where.sum())]
