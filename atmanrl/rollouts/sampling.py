"""`HFSampler`: completions sampled by the live policy itself, a Hugging Face model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.modes import evaluating
from atmanrl.models.policy import Policy
from atmanrl.rollouts.decoding import Decoded, decode_dynamic, prefill
from atmanrl.rollouts.decoding_state import DecodingStep, decode_step
from atmanrl.rollouts.sampler import Completion, Sampler, SamplingOptions
from atmanrl.rollouts.static_decoding import decode_static, why_not_static
from atmanrl.rollouts.stop_criteria import StopCriteria
from atmanrl.rollouts.truncation import ALL_TOKENS, Truncation

CompileMode = Literal["auto", "default", "reduce-overhead", "cudagraphs"]
log = logging.getLogger("atmanrl")


class HFSampler(Sampler):
    """Samples from the live policy: the prompt is read once for a group, and finished rows are dropped.

    The tokens of a completion depend on its random numbers alone, whatever the options here; log-probabilities agree to
    rounding.

    Args:
        cache: `dynamic` grows with the tokens and drops a row with its last token. `static` is preallocated, drops
            rows now and then, and is refused for models that keep another state than keys and values. `auto` is static
            where the model permits.
        compile: what is made of a decoding step with a static cache. `cudagraphs` captures it as it is, one launch in
            place of over a thousand (needs a CUDA device): a third of the time a token for a 3B model on an H100. `auto`
            does so on a CUDA device. `default` compiles a step by inductor. `reduce-overhead`, or true, does both; on a
            CPU it compiles alone. false runs it as it is.

    Raises:
        UserError: a step is to be compiled with a dynamic cache.
    """

    def __init__(
        self, cache: Literal["dynamic", "static", "auto"] = "auto", compile: bool | CompileMode = "auto"
    ) -> None:
        if compile and compile != "auto" and cache == "dynamic":
            raise UserError("data.sampler.compile needs a cache of fixed shape: give cache: static, or auto.")
        self.cache = cache
        self.mode: CompileMode | None = "reduce-overhead" if compile is True else compile or None
        self._step: DecodingStep | None = None
        self._told = False

    @torch.no_grad()
    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, options: SamplingOptions
    ) -> list[list[Completion]]:
        """Complete each of Q prompts G times (see `Sampler.sample`).

        The policy is in eval mode meanwhile; each module is left in the mode that it had.

        Raises:
            UserError: a prompt and `max_new_tokens` do not fit into the model's context, the model gives NaN, or it
                cannot decode in the way that was asked for.
        """
        queries, group, limit = uniforms.shape
        longest = max(map(len, prompts))
        if longest + limit > policy.context_length:
            raise UserError(
                f"a prompt of {longest} tokens and max_new_tokens={limit} exceed the model's context of "
                f"{policy.context_length} tokens; lower data.max_new_tokens."
            )
        with evaluating(policy.model):
            decoded = self._decoded(policy, prompts, uniforms.to(policy.device), options)
        _check(decoded.logprobs, group)
        completions = [
            Completion(ids[:length].tolist(), scores[:length].tolist(), finished)
            for ids, scores, length, finished in zip(
                decoded.tokens.cpu(), decoded.logprobs.cpu(), decoded.lengths.tolist(), decoded.finished.tolist(),
                strict=True,
            )
        ]  # fmt: skip
        return [completions[q * group : (q + 1) * group] for q in range(queries)]

    def _decoded(
        self, policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, options: SamplingOptions
    ) -> Decoded:
        criteria, read = StopCriteria(policy, options.stop), prefill(policy, prompts)
        on_cuda = policy.device.type == "cuda"
        wanted = self.cache == "static" or (self.cache == "auto" and (on_cuda or self.mode not in (None, "auto")))
        if not wanted or not self._is_static(policy, read.cache):
            return decode_dynamic(policy, read, uniforms, options, criteria)
        if self.mode == "cudagraphs" and not on_cuda:
            raise UserError(
                f"data.sampler.compile: cudagraphs needs a CUDA device, and the policy is on {policy.device}: "
                "give compile: false, or default for inductor."
            )
        graphs: Literal["no", "try", "yes"] = "no"
        if on_cuda and self.mode in ("auto", "cudagraphs", "reduce-overhead"):
            graphs = "try" if self.mode == "auto" else "yes"
        return decode_static(policy, read, uniforms, options, criteria, self._compiled(), graphs)

    def _is_static(self, policy: Policy, cache: Any) -> bool:
        """Whether the policy can decode with a static cache. Where it cannot, `auto` says so once.

        Raises:
            UserError: it cannot, and `static` was asked for.
        """
        reason = why_not_static(policy, cache)
        if reason is None:
            return True
        if self.cache == "static":
            raise UserError(
                f"{type(policy.model).__name__} cannot decode with a static cache: {reason}. Set "
                "data.sampler.cache to dynamic."
            )
        if not self._told:
            log.warning("%s is sampled with a dynamic cache: %s.", type(policy.model).__name__, reason)
            self._told = True
        return False

    def _compiled(self) -> DecodingStep:
        """The decoding step, compiled once if the mode says so.

        Sizes of batch and cache become symbols when they change for the first time: two or three compilations in all.
        """
        if self._step is None:
            as_it_is = self.mode in (None, "auto", "cudagraphs")
            self._step = decode_step if as_it_is else torch.compile(decode_step)
        return self._step


def sample(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    uniform: Tensor,
    temperature: float = 1.0,
    truncation: Truncation = ALL_TOKENS,
    stop: Sequence[str] = (),
) -> list[list[Completion]]:
    """Complete each of Q prompts G times by `HFSampler` as it is by default.

    Args:
        policy: built.
        prompts: token ids of Q prompts.
        uniform: `[Q, G, T]`, one number in [0, 1) for every token that may be drawn (see `seeds.uniforms`).
        temperature: of the softmax.
        truncation: which tokens may be drawn.
        stop: strings that end a completion.
    """
    options = SamplingOptions(
        uniform.shape[2], temperature, truncation.top_k, truncation.top_p, truncation.min_p, tuple(stop)
    )
    return HFSampler().sample(policy, prompts, uniform, options)


def _check(logprobs: Tensor, group: int) -> None:
    """One look after all tokens are drawn: a look at each token would make the device wait."""
    if logprobs.isnan().any():
        row, token = logprobs.isnan().nonzero()[0].tolist()
        raise UserError(
            f"the model gives NaN logits (prompt {row // group + 1} of the batch, token {token + 1} of sample "
            f"{row % group + 1}): its weights have diverged (lower the learning rate) or its numbers overflow (take "
            "bfloat16 or float32 instead of float16)."
        )
