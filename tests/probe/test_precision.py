"""The probe in every precision: finite and near to float64, whatever the backend, the padding and the cache."""

from contextlib import nullcontext

import pytest
import torch
from architectures import ARCHITECTURES, VOCAB
from probe_reference import Case, Exact, cases
from test_architectures import answer_logprobs
from torch import nn
from torch.overrides import TorchFunctionMode

from atmanrl.probe.attention import attention_hook
from atmanrl.probe.guard import check
from atmanrl.probe.module import frozen
from atmanrl.probe.objective import Objective
from atmanrl.probe.target import Target

BF16, FP16 = torch.bfloat16, torch.float16
PRECISIONS = {  # dtype of the weights, autocast's, the worst error of a log-probability, the least cosine of gradients
    "float32": ("float32", None, 1e-4, 0.9999),
    "bf16": ("bfloat16", None, 0.15, 0.98),
    "bf16-mixed": ("float32", BF16, 0.15, 0.98),
    "fp16": ("float16", None, 0.03, 0.999),
    "16-mixed": ("float32", FP16, 0.03, 0.999),
}
PROMPTS = {"equal": (6, 6, 6), "unequal": (3, 9, 5)}
TAILS = ((6, 2, 2), (4, 1, 3), (9, 1, 1))
NARROW_ALONE = ["bf16", "fp16"]
OTHERS = [
    *[(name, backend, "bf16-mixed") for name in ("Qwen3", "Gemma3 (text)") for backend in ("lean", "eager", "sdpa")],
    *[(name, "eager", p) for name in ("Gemma2", "Bloom", "gpt-oss") for p in ("bf16-mixed", "fp16")],
    # models whose own attention takes a softmax or a product in the dtype of narrow weights
    *[(name, "eager", p) for name in ("Llama4 (text)", "Falcon (rotary), eager") for p in NARROW_ALONE],
    *[("Falcon (rotary), sdpa", "sdpa", p) for p in (*NARROW_ALONE, "bf16-mixed")],
]
_REFERENCES: dict[tuple[str, str], list] = {}


def rollouts(prompts: str) -> list[Case]:
    return cases([(p, *tail) for p, tail in zip(PROMPTS[prompts], TAILS, strict=True)], VOCAB)


def masks(given: list[Case]) -> list[torch.Tensor]:
    """Flat vectors around the start of the paper's solver, which is -0.4."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(len(c.entries), generator=generator).double() * 0.1 - 0.3 for c in given]


def references(name: str, prompts: str) -> list:
    """Log-probabilities of each answer, and the gradient of its loss, in float64."""
    if (name, prompts) not in _REFERENCES:
        given, found = rollouts(prompts), []
        with Exact():
            model = ARCHITECTURES[name].build("eager").requires_grad_(False)
            for case, values in zip(given, masks(given), strict=True):
                values = values.clone().requires_grad_()
                logprobs = answer_logprobs(model, ARCHITECTURES[name], case, values)
                found.append((logprobs.detach(), torch.autograd.grad(-logprobs.mean(), values)[0]))
        _REFERENCES[name, prompts] = found
    return _REFERENCES[name, prompts]


def objective(model, given: list[Case], cached: bool) -> Objective:
    targets = [Target(c.prompt, c.cot, c.delimiter, c.answer) for c in given]
    return Objective(model, targets, 10.0, 0, 1024, cached)


def autocast(kind: torch.dtype | None):
    """As Lightning has it."""
    return nullcontext() if kind is None else torch.autocast("cpu", dtype=kind, cache_enabled=False)


def check_against_float64(name: str, backend: str, precision: str, prompts: str, cached: bool) -> None:
    dtype, kind, error, cosine = PRECISIONS[precision]
    given, model = rollouts(prompts), ARCHITECTURES[name].build(backend, dtype)
    with frozen(model), attention_hook(model, backend), autocast(kind):
        check(model)
        values = torch.cat(masks(given)).float()
        found = objective(model, given, cached).evaluate(values, torch.arange(len(given)))
    assert found.loss.isfinite().all() and found.gradient.isfinite().all() and found.gradient.dtype == torch.float32
    gradients = found.gradient.double().split([len(c.entries) for c in given])
    for k, (logprobs, gradient) in enumerate(references(name, prompts)):
        assert (found.logprobs[k, : len(logprobs)].double() - logprobs).abs().max() < error
        assert torch.cosine_similarity(gradients[k], gradient, dim=0) > cosine
        assert float(gradients[k].norm() / gradient.norm()) == pytest.approx(1, abs=2 * error)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "whole"])
@pytest.mark.parametrize("prompts", list(PROMPTS))
@pytest.mark.parametrize("backend", ["lean", "eager", "sdpa"])
@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_a_llama_in_every_precision(precision, backend, prompts, cached):
    check_against_float64("Llama", backend, precision, prompts, cached)


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "whole"])
@pytest.mark.parametrize(("name", "backend", "precision"), OTHERS)
def test_other_architectures(name, backend, precision, cached):
    check_against_float64(name, backend, precision, "unequal", cached)


class Meetings(TorchFunctionMode):
    """Notes what softmax and PyTorch's own attention are given: dtypes, and whether gradients are asked for."""

    SOFTMAX = (nn.functional.softmax, torch.softmax, torch.Tensor.softmax)

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()
        self.asked: list[bool] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            mask, *states = kwargs.get("attn_mask", args[3] if len(args) > 3 else None), *args[:3]
            if mask is not None and mask.is_floating_point():
                self.dtypes |= {each.dtype for each in (mask, *states)}
                self.dtypes |= {torch.get_autocast_dtype("cpu")} if torch.is_autocast_enabled("cpu") else set()
            if mask is not None and mask.requires_grad:
                self.asked.append(any(each.requires_grad for each in states))
        if func in self.SOFTMAX and args[0].ndim == 4:
            self.dtypes.add(args[0].dtype)
        return func(*args, **kwargs)


@pytest.mark.parametrize("precision", ["bf16", "bf16-mixed", "fp16", "16-mixed"])
@pytest.mark.parametrize("backend", ["lean", "eager", "sdpa"])
def test_the_bias_meets_scores_in_float32(backend, precision):
    """In bfloat16 a step of the mask, 0.01 near -4, would often be none."""
    dtype, kind, *_ = PRECISIONS[precision]
    given, model = rollouts("unequal"), ARCHITECTURES["Llama"].build(backend, dtype)
    with Meetings() as meetings, frozen(model), attention_hook(model, backend), autocast(kind):
        found = objective(model, given, cached=True)
        found.evaluate(torch.cat(masks(given)).float(), torch.arange(len(given)))
    assert meetings.dtypes == {torch.float32}


@pytest.mark.parametrize("inside", [False, True], ids=["around the hook", "within the hook"])
@pytest.mark.parametrize("cached", [True, False], ids=["cached", "whole"])
@pytest.mark.parametrize("name", ["Llama", "Gemma3 (text)", "Falcon (rotary), sdpa", "GPT-2"])
def test_where_the_mask_needs_a_gradient_query_key_or_value_does(name, cached, inside):
    """CUDA's memory-efficient attention looks at those three alone to see whether a backward pass follows."""
    given, model, meetings = rollouts("unequal"), ARCHITECTURES[name].build("sdpa", "float32"), Meetings()
    with nullcontext() if inside else meetings, frozen(model), attention_hook(model, "sdpa"):
        with meetings if inside else nullcontext():
            check(model)
            guarded = len(meetings.asked)
            values = torch.cat(masks(given)).float()
            objective(model, given, cached).evaluate(values, torch.arange(len(given)))
    assert guarded >= 4 and len(meetings.asked) - guarded >= 2  # each pass has two layers
    assert all(meetings.asked)
