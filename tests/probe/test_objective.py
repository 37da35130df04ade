import pytest
import torch
from probe_reference import Case, Exact, Reference, cases, strengthen

from atmanrl.probe.attention import ProbeError, attention_hook
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target

SHAPES = [(3, 1, 1, 1), (9, 6, 2, 2), (3, 4, 1, 3), (6, 11, 1, 1), (9, 5, 3, 4)]


@pytest.fixture
def policy(tiny_policy):
    strengthen(tiny_policy.model, 3.0)
    return tiny_policy


@pytest.fixture
def mistral():
    """A sliding window of 6, shorter than every sequence here and than some prompts."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, sliding_window=6, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    return MistralForCausalLM(config).double().eval()


@pytest.fixture(autouse=True)
def exact():
    with Exact():
        yield


def objective(model, rollouts: list[Case], batch_tokens: int = 1024, cache_prompts: bool = True) -> Objective:
    targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in rollouts]
    return Objective(model, targets, 10.0, 0, batch_tokens, cache_prompts)


def random_masks(rollouts: list[Case], seed: int = 1) -> list[torch.Tensor]:
    """Flat vectors around -0.2, some values above 0."""
    generator = torch.Generator().manual_seed(seed)
    flat = [torch.randn(len(c.entries), generator=generator).double() * 0.2 - 0.2 for c in rollouts]
    assert any((values > 0).any() for values in flat)
    return flat


def initial(found: Objective) -> torch.Tensor:
    return torch.full((found.entries.ragged.total,), -0.4, dtype=torch.float64)


def check_against(reference: Reference, rollouts: list[Case], found: Objective) -> None:
    flat = random_masks(rollouts)
    evaluation = found.evaluate(torch.cat(flat), torch.arange(len(rollouts)))
    gradients = evaluation.gradient.split([len(values) for values in flat])
    for k, (case, values) in enumerate(zip(rollouts, flat, strict=True)):
        loss, expected = reference.gradient(case, values)
        assert float(evaluation.loss[k]) == pytest.approx(loss, rel=1e-11)
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(gradients[k], expected, rtol=1e-9, atol=1e-12)
        assert -float(evaluation.logprobs[k].sum()) / len(case.answer) == pytest.approx(loss, rel=1e-11)
        assert (evaluation.logprobs[k, len(case.answer) :] == 0).all()


@pytest.mark.parametrize("batch_tokens", [1, 30, 10_000])
@pytest.mark.parametrize("cache_prompts", [True, False])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_equals_the_reference(policy, backend, cache_prompts, batch_tokens):
    rollouts = cases(SHAPES, policy.model.config.vocab_size)
    with frozen(policy.model), attention_hook(policy.model, backend):
        check_against(Reference(policy.model), rollouts, objective(policy.model, rollouts, batch_tokens, cache_prompts))


@pytest.mark.parametrize("cache_prompts", [True, False])
@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_sliding_windows_stay_right(mistral, backend, cache_prompts):
    rollouts = cases([*SHAPES, (14, 9, 1, 2)], mistral.config.vocab_size)
    with frozen(mistral), attention_hook(mistral, backend):
        check_against(Reference(mistral, window=6), rollouts, objective(mistral, rollouts, cache_prompts=cache_prompts))


def test_gradient_is_the_slope_of_the_loss(policy):
    rollouts = cases(SHAPES, policy.model.config.vocab_size)
    values = torch.cat(random_masks(rollouts))
    every_row, step = torch.arange(len(rollouts)), 1e-5
    with frozen(policy.model), attention_hook(policy.model, "sdpa"):
        found = objective(policy.model, rollouts)
        gradient = found.evaluate(values, every_row).gradient
        for place in range(0, len(values), 7):
            moved = torch.zeros_like(values)
            moved[place] = step
            up, down = (found.loss(values + s * moved) for s in (1, -1))
            slope = (up - down).sum() / (2 * step)
            torch.testing.assert_close(slope, gradient[place], rtol=1e-5, atol=1e-9)


def test_gradient_does_not_depend_on_company(policy):
    rollouts = cases(SHAPES, policy.model.config.vocab_size)
    flat = random_masks(rollouts)
    with frozen(policy.model), attention_hook(policy.model, "eager"):
        found = objective(policy.model, rollouts)
        together = found.evaluate(torch.cat(flat), torch.arange(len(rollouts)))
        gradients = together.gradient.split([len(values) for values in flat])
        for chosen in ([2], [4, 0], [3, 1, 2], [1, 1]):
            rows = torch.tensor(chosen)
            some = found.evaluate(torch.cat([flat[k] for k in chosen]), rows)
            expected = torch.cat([gradients[k] for k in chosen])
            torch.testing.assert_close(some.gradient, expected, rtol=1e-10, atol=1e-14)
            torch.testing.assert_close(some.loss, together.loss[rows], rtol=1e-12, atol=0)


def test_every_value_has_an_effect_but_those_of_the_last_row(policy):
    rollouts = cases(SHAPES, policy.model.config.vocab_size)
    with frozen(policy.model), attention_hook(policy.model, "eager"):
        found = objective(policy.model, rollouts)
        gradient = found.evaluate(initial(found), torch.arange(len(rollouts))).gradient
    for case, values in zip(rollouts, gradient.split([len(c.entries) for c in rollouts]), strict=True):
        last = len(case.tail) - 1  # nothing follows the last answer token: its row is trainable, and has no effect
        is_last = torch.tensor([w == last for w, _ in case.entries])
        assert (values[is_last] == 0).all()
        assert (values[~is_last] != 0).sum() >= (~is_last).sum() - 1  # a row of one entry may be 0 too
    assert all(weight.grad is None for weight in policy.model.parameters())


def test_what_is_computed(policy):
    """The prompts once; then no more tokens at a time than allowed, padding counted, without the last."""
    rollouts = cases(SHAPES, policy.model.config.vocab_size)
    shapes = []
    policy.model.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with frozen(policy.model), attention_hook(policy.model, "eager"):
        for batch_tokens in (1024, 26):
            found = objective(policy.model, rollouts, batch_tokens)
            for _ in range(2):
                found.evaluate(initial(found), torch.arange(len(rollouts)))
    few = [(1, 2), (2, 9), (2, 12)]  # tails of 3, 8, 10, 12 and 13 tokens
    assert shapes == [(3, 9), (5, 12), (5, 12), (3, 9), *few, *few]


def test_a_model_that_ignores_the_bias_is_refused(policy):
    rollouts = cases(SHAPES[:2], policy.model.config.vocab_size)
    with frozen(policy.model):
        found = objective(policy.model, rollouts)
        with pytest.raises(ProbeError, match="ignores the attention bias"):
            found.evaluate(initial(found), torch.arange(2))


@pytest.mark.parametrize("gradient", [True, False])
def test_logits_that_are_not_finite_are_refused(policy, gradient):
    rollouts = cases(SHAPES[:2], policy.model.config.vocab_size)
    with torch.no_grad():
        policy.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with frozen(policy.model), attention_hook(policy.model, "eager"):
        found = objective(policy.model, rollouts)
        with pytest.raises(ProbeError, match="not finite"):
            found.evaluate(initial(found)) if gradient else found.loss(initial(found))


def test_flash_attention_is_refused(policy):
    with pytest.raises(ProbeError, match="flash_attention_2"), attention_hook(policy.model, "flash_attention_2"):
        pass
