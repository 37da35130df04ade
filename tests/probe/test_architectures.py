"""Answers and gradients under a mask, for many architectures, against one unpadded rollout at a time."""

from contextlib import nullcontext

import pytest
import torch
from architectures import ARCHITECTURES, IGNORING, VOCAB, Architecture, Biased
from probe_reference import Case, Exact, cases

from atmanrl.probe.attention import ProbeError, attention_hook, backends, choose_backend
from atmanrl.probe.guard import check
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target

SHAPES = [(3, 1, 1, 1), (9, 6, 2, 2), (3, 4, 1, 3), (6, 9, 1, 1)]  # prompt, reasoning, delimiter, answer
ROLLOUTS = cases(SHAPES, VOCAB)
RUNS = [(name, backend) for name, a in ARCHITECTURES.items() for backend in a.backends]


def masks() -> list[torch.Tensor]:
    """Flat vectors, one for each rollout; some values are above 0."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(len(c.entries), generator=generator).double() * 0.2 - 0.2 for c in ROLLOUTS]


def answer_logprobs(model, architecture: Architecture, case: Case, values: torch.Tensor) -> torch.Tensor:
    """Of the answer's tokens: one unpadded sequence, no cache, the bias added where the model takes its softmax."""
    ids, start, n = case.prompt + case.tail, len(case.prompt), len(case.answer)
    w, v = torch.tensor(case.entries).T + start
    bias = torch.zeros(len(ids), len(ids), dtype=torch.float64).index_put((w, v), 10.0 * values.clamp(max=0))
    with Biased(bias) as biased:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, len(ids) - n - 1 : -1]
    assert biased.count == architecture.layers
    return logits.log_softmax(-1)[torch.arange(n), torch.tensor(case.answer)]


_REFERENCES: dict[str, list] = {}


def references(name: str) -> list:
    """For each rollout its answer's log-probabilities and the gradient of its loss, by the reference in eager mode."""
    if name not in _REFERENCES:
        architecture, found = ARCHITECTURES[name], []
        model = architecture.build("eager").requires_grad_(False)
        for case, values in zip(ROLLOUTS, masks(), strict=True):
            values = values.clone().requires_grad_()
            logprobs = answer_logprobs(model, architecture, case, values)
            (gradient,) = torch.autograd.grad(-logprobs.mean(), values)
            with torch.no_grad():
                unmasked = answer_logprobs(model, architecture, case, torch.zeros_like(values))
            found.append((logprobs.detach(), gradient, unmasked))
        _REFERENCES[name] = found
    return _REFERENCES[name]


def objective(model, cache_prompts: bool, batch_tokens: int = 1024) -> Objective:
    targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in ROLLOUTS]
    return Objective(model, targets, 10.0, 0, batch_tokens, cache_prompts)


@pytest.fixture(autouse=True)
def exact(request):
    with nullcontext() if "float32" in request.node.name else Exact():
        yield


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_answers_and_gradients_under_a_mask(name, backend):
    expected = references(name)
    assert max((masked - unmasked).abs().max() for masked, _, unmasked in expected) > 0.05
    model = ARCHITECTURES[name].build(backend)
    assert backend in backends(model) and choose_backend(model) == ARCHITECTURES[name].backends[0]
    flat = masks()
    with frozen(model), attention_hook(model, backend):
        check(model)
        for cache_prompts in (True, False):
            found = objective(model, cache_prompts)
            assert (found._cache is not None) == (cache_prompts and ARCHITECTURES[name].cached)
            evaluation = found.evaluate(torch.cat(flat), torch.arange(len(ROLLOUTS)))
            gradients = evaluation.gradient.split([len(values) for values in flat])
            for k, (logprobs, gradient, _) in enumerate(expected):
                assert gradient.abs().max() > 1e-4
                torch.testing.assert_close(evaluation.logprobs[k, : len(logprobs)], logprobs, rtol=0, atol=1e-7)
                torch.testing.assert_close(gradients[k], gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_float32_as_users_run_it(name, backend):
    """With what the tests in float64 cannot have: rounded norms and softmax, and grouped kernels for experts."""
    model, flat = ARCHITECTURES[name].build(backend, "float32"), masks()
    with Exact():
        expected = references(name)
    with frozen(model), attention_hook(model, backend):
        check(model)
        evaluation = objective(model, True).evaluate(torch.cat(flat).float(), torch.arange(len(ROLLOUTS)))
    for k, gradient in enumerate(evaluation.gradient.split([len(values) for values in flat])):
        logprobs, wanted, _ = expected[k]
        torch.testing.assert_close(evaluation.logprobs[k, : len(logprobs)].double(), logprobs, rtol=0, atol=1e-4)
        assert (gradient - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.endswith(", sdpa")])
def test_the_reference_gradient_is_a_slope(name):
    """By finite differences, at the entries that matter most: the references above are right too."""
    architecture, case, values = ARCHITECTURES[name], ROLLOUTS[1], masks()[1]
    model, gradient = architecture.build("eager").requires_grad_(False), references(name)[1][1]
    for place in gradient.abs().topk(2).indices.tolist():
        losses = []
        for step in (1e-5, -1e-5):
            moved = values.clone()
            moved[place] += step
            losses.append(-float(answer_logprobs(model, architecture, case, moved).mean()))
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float(gradient[place]), rel=1e-4)


@pytest.mark.parametrize(("name", "backend"), [(n, b) for n, a in IGNORING.items() for b in a.backends])
def test_models_that_ignore_the_mask_are_refused(name, backend):
    model = IGNORING[name].build(backend)
    with attention_hook(model, choose_backend(model)):
        with pytest.raises(ProbeError, match=rf"^{type(model).__name__} ignores the attention bias .*cannot be probed"):
            check(model)
