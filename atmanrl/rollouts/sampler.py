"""What answers prompts: the `Sampler` interface, its typed options and what it returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from atmanrl.rollouts.truncation import Truncation


@dataclass(frozen=True)
class Completion:
    """One answer of the policy to a prompt.

    Attributes:
        ids: token ids, including the end-of-sequence token if it was drawn.
        logprobs: log-probability of each token at the sampling temperature.
        finished: whether it ended by itself, with an end-of-sequence token or a stop string, and was not cut off.

    Example:
        `Completion(ids=[88, 12, 2], logprobs=[-0.31, -1.2, -0.05], finished=True)`
    """

    ids: list[int]
    logprobs: list[float]
    finished: bool


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn; the names are those of Hugging Face's `GenerationConfig` and vLLM's `SamplingParams`.

    Attributes:
        max_new_tokens: longest completion, in tokens.
        temperature: of the softmax; log-probabilities are taken at it too.
        top_k: draw from the k likeliest tokens only; 0 takes all (see `rollouts.truncation`).
        top_p: draw from the likeliest tokens that together have this probability; 1 takes all.
        min_p: draw from tokens with at least this part of the likeliest one's probability; None takes all.
        stop: a completion ends with the token that completes one of these strings in its text.

    Example:
        `SamplingOptions(max_new_tokens=256, temperature=0.7, top_p=0.95, stop=("Question:",))`

    Raises:
        UserError: a value is outside of its range; the message names the option.
    """

    max_new_tokens: int = 1024
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values outside of their range."""
        if self.max_new_tokens < 1:
            raise UserError(f"data.max_new_tokens is {self.max_new_tokens}; give at least 1.")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"data.temperature is {self.temperature}; give a number above 0.")
        self.truncation  # noqa: B018  checks its own values

    @cached_property
    def truncation(self) -> Truncation:
        """Which tokens may be drawn, by `top_k`, `top_p` and `min_p`."""
        return Truncation(self.top_k, self.top_p, self.min_p)


class Sampler(ABC):
    """Answers prompts. Name your own by its class path in `data.sampler`.

    A sampler with an engine of its own (vLLM, SGLang, a server) hands the policy's weights over in `sync` and asks the
    engine in `sample`. One that runs the policy itself needs no `sync`.
    """

    def sync(self, policy: Policy) -> None:
        """Take over the policy's weights, which have changed: called once an update, before `sample`.

        Args:
            policy: holds the whole weights, also under FSDP2. Every process calls this.
        """
        return None

    @abstractmethod
    def sample(
        self, policy: Policy, prompts: Sequence[Sequence[int]], uniforms: Tensor, options: SamplingOptions
    ) -> list[list[Completion]]:
        """Complete each of Q prompts G times.

        Args:
            policy: the live policy, with its tokenizer and its end-of-sequence tokens `eos_ids`.
            prompts: token ids of Q prompts.
            uniforms: `[Q, G, T]` on the CPU, a number in [0, 1) for each of T = `options.max_new_tokens` tokens. A sampler
                that draws by them gives the same rollouts in every batch, on any number of processes and after a
                restart (see `seeds.inverse_cdf`); an engine that cannot may take `uniforms[q, g, 0]` as a seed.
            options: how tokens are drawn.

        Returns:
            Q lists of G completions of at most T tokens. Log-probabilities are those of the whole softmax, before
            truncation: the update compares them with the policy that learns, which is not truncated.
        """
