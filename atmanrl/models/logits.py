"""Forward passes that compute logits only where they are needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 1 << 26
"""Most logits that `scores_at` holds at a time: 256 MiB in float32."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module is in the mode in which it was found."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


Inputs = tuple[Tensor, ...]


def _selecting(where: Tensor) -> Callable[[nn.Module, Inputs], Inputs]:
    """A forward pre-hook that turns hidden states `[B, S, D]` into those at the K true positions, `[1, K, D]`."""

    def select(_: nn.Module, args: Inputs) -> Inputs:
        return (args[0][where].unsqueeze(0), *args[1:])

    return select


@contextmanager
def head_at(model: nn.Module, where: Tensor) -> Iterator[None]:
    """Let the language-model head see the positions `where` alone, whatever the architecture.

    The head costs vocabulary x hidden a position, and its logits are the largest tensor of a forward pass: with a
    vocabulary of 128k they outweigh everything else. What a model does to its logits afterwards (scaling, capping) is
    elementwise and stays as it is.

    Args:
        model: a Hugging Face causal language model; within the context its logits are `[1, K, V]`.
        where: `[B, S]` boolean with K true entries, in row-major order.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(_selecting(where))
    try:
        yield
    finally:
        handle.remove()


_LAST: ContextVar[tuple[nn.Module | None, Tensor] | None] = ContextVar("atmanrl_last_layer", default=None)
"""The last layer's attention, and the positions at which its output matters."""


def wanted_rows(attention: nn.Module) -> Tensor | None:
    """Where `[B, S]` the output of an attention module matters, for attention functions that can make use of it.

    None where all of it does: outside of `last_layer_at`, and in every layer but the last.
    """
    last = _LAST.get()
    return last[1] if last is not None and last[0] is attention else None


@contextmanager
def last_layer_at(model: nn.Module, where: Tensor) -> Iterator[None]:
    """Let the last layer's feed-forward part see the positions `where` alone; elsewhere its output is 0.

    After the last layer's keys and values nothing mixes positions any more, so where no logits are asked for the rest of
    that layer is work for nothing. Its attention may leave those positions out too (see `wanted_rows`). A model whose
    layers are built otherwise is left as it is.

    Args:
        model: a Hugging Face causal language model.
        where: `[B, S]` boolean; the last hidden states and the logits are right there, and only there.
    """
    layers = getattr(model.base_model, "layers", None)
    part = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) else None
    if part is None:
        yield
        return
    assert isinstance(layers, nn.ModuleList)

    def scatter(_: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return (scatter(_, args, output[0]), *output[1:])
        return output.new_zeros(*where.shape, output.shape[-1]).masked_scatter(where[..., None], output)

    token = _LAST.set((getattr(layers[-1], "self_attn", None), where))
    handles = [part.register_forward_pre_hook(_selecting(where)), part.register_forward_hook(scatter)]
    try:
        yield
    finally:
        _LAST.reset(token)
        for handle in handles:
            handle.remove()


def logits_at(model: nn.Module, where: Tensor, **inputs: Any) -> Tensor:
    """Logits `[K, V]` at the K true positions of `where [B, S]`, in row-major order.

    `inputs` are passed to the model: `input_ids [B, S]`, `attention_mask`, `position_ids`, `past_key_values`.
    """
    with head_at(model, where), last_layer_at(model, where):
        logits: Tensor = model(**inputs).logits
    return logits[0]


def widened(dtype: torch.dtype) -> torch.dtype:
    """Float32, or float64 for float64: what scores, probabilities and sums are computed in."""
    return torch.promote_types(dtype, torch.float32)


def without_autocast(tensor: Tensor) -> torch.autocast:
    """A context in which operations on the tensor's device keep to the dtypes of their inputs.

    Mixed precision lowers products of float32 tensors (`matmul`, `vecdot`, attention) without a word.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def token_logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities `[K]` of `tokens [K]` under `logits [K, V]` at a temperature, in float32 or better."""
    logits = logits.to(widened(logits.dtype)) / temperature
    return logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


class _TokenScores(torch.autograd.Function):
    """Log-probability of one token a row and the entropy of each row, with a single softmax for both and the gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        scaled = logits.to(widened(logits.dtype))
        scaled = scaled if temperature == 1 else scaled / temperature
        shares = scaled.softmax(-1)
        top, where = scaled.max(-1, keepdim=True)
        total = (top - shares.gather(-1, where).log())[:, 0]  # logsumexp, without another pass of exponentials
        chosen = scaled.gather(-1, tokens[:, None])[:, 0] - total
        with without_autocast(logits):  # in bf16 the product is off by up to 0.03 nats
            entropy = total - torch.linalg.vecdot(shares, scaled)
        ctx.save_for_backward(shares, tokens)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.mark_non_differentiable(entropy)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        shares, tokens = ctx.saved_tensors
        grad = (grads[0] / ctx.temperature)[:, None]
        return (shares * -grad).scatter_add_(-1, tokens[:, None], grad).to(ctx.dtype), None, None


def token_scores(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities `[K]` of `tokens [K]` under `logits [K, V]` at a temperature, and entropies `[K]` in nats.

    In float32 or better. The entropy has no gradient.
    """
    chosen, entropy = _TokenScores.apply(logits, tokens, temperature)  # type: ignore[no-untyped-call]
    return chosen, entropy


def likeliest_scores(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities `[K]` of `tokens [K]` under `logits [K, V]`, and whether each is the likeliest token, `[K]`.

    Of several that are equally likely the first one counts, as in greedy decoding.
    """
    return token_logprobs(logits, tokens), logits.argmax(-1) == tokens


def scores_at(
    model: nn.Module, where: Tensor, tokens: Tensor, temperature: float = 1.0, most: int = LOGITS_AT_ONCE, **inputs: Any
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies (see `token_scores`) of the K tokens that follow the true positions of `where`.

    Where K x V logits would be more than `most`, they are computed for some positions at a time and, for the gradient,
    once more in the backward pass, so that they never exist all at once. Values and gradients are the same.

    Args:
        model: a Hugging Face causal language model.
        where: `[B, S]` boolean with K true entries.
        tokens: `[K]` in row-major order.
        temperature: of the softmax.
        most: logits that are held at a time; at least one position's are.
        inputs: of the model: `input_ids [B, S]`, `attention_mask`, `position_ids`, `past_key_values`.
    """
    return scored_at(model, where, tokens, partial(token_scores, temperature=temperature), most, **inputs)


def scored_at(
    model: nn.Module, where: Tensor, tokens: Tensor, score: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    most: int = LOGITS_AT_ONCE, **inputs: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `score(logits [k, V], tokens [k])` says of the K tokens that follow the true positions of `where`.

    It is called for some positions at a time where there are many (see `scores_at`), and gives two tensors `[k]`.
    """
    size = max(1, most // int(model.config.get_text_config().vocab_size))  # type: ignore[operator, union-attr]
    if len(tokens) <= size:
        return score(logits_at(model, where, **inputs), tokens)
    hidden, output = _hidden_at(model, where, **inputs)

    def some(states: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return score(_head(model, states, output), chosen)

    parts = [
        checkpoint(some, states, chosen, use_reentrant=False, preserve_rng_state=False)
        for states, chosen in zip(torch.split(hidden, size), torch.split(tokens, size), strict=True)
    ]
    return torch.cat([first for first, _ in parts]), torch.cat([second for _, second in parts])


def _hidden_at(model: nn.Module, where: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
    """What the head would read at the K true positions, `[K, D]`, and the output of the model below the head."""
    outputs: list[Any] = []
    base: nn.Module = model.base_model  # type: ignore[assignment]
    handle = base.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    try:
        with head_at(model, torch.zeros_like(where)), last_layer_at(model, where):
            model(**inputs)
    finally:
        handle.remove()
    return outputs[0].last_hidden_state[where], outputs[0]


def _head(model: nn.Module, hidden: Tensor, output: Any) -> Tensor:
    """Logits `[K, V]` of hidden states `[K, D]`, with whatever the model does to its logits after the head.

    The model runs as it is, except that what lies below its head gives back these states.
    """
    given = copy.copy(output)
    given["last_hidden_state"], given["past_key_values"] = hidden[None], None
    base: nn.Module = model.base_model  # type: ignore[assignment]
    own = base.__dict__.get("forward")
    base.forward = lambda *_args, **_kwargs: given
    try:
        logits: Tensor = model(input_ids=torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)).logits
    finally:
        del base.forward
        if own is not None:
            base.forward = own
    return logits[0]


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids `[B, S]` of left- or right-padded rows: each row counts its own tokens from 0."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def cheapest_batches(lengths: Sequence[int], budget: int, pass_tokens: int = 512) -> list[list[int]]:
    """Indices of sequences in batches of like lengths, parted so that the work is least.

    The work is the tokens with their padding, and some for each pass: batches as full as the budget allows pad short
    sequences to the longest, many small ones pay for every pass.

    Args:
        lengths: of the sequences.
        budget: most tokens of a batch, padding counted. A sequence longer than it stands alone.
        pass_tokens: how many tokens a pass costs by itself, whatever it reads.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    best, begins = [0.0], [0]  # the least work for the first k sequences, and where their last batch begins
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        starts = range(max(0, end - max(1, budget // longest)), end)
        work = [best[s] + (end - s) * longest + pass_tokens for s in starts]
        best.append(min(work))
        begins.append(starts[work.index(best[-1])])
    batches, end = [], len(order)
    while end:
        batches.append(order[begins[end] : end])
        end = begins[end]
    return batches[::-1]
