"""The probe written down a second time, slowly and in float64, sharing no code with the package.

The mask of a rollout is here a flat vector, one number for each trainable entry; rollouts are worked through one by
one, as whole sequences without a cache, and AdamW is a loop over plain tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Exact(TorchFunctionMode):
    """Within it, float64 models stay float64: transformers rounds norms, rotary angles and eager softmax to float32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args = [torch.float64 if a is torch.float32 else a for a in args]
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return (torch.Tensor.double if func is torch.Tensor.float else func)(*args, **kwargs)


@dataclass(frozen=True)
class Case:
    """Token ids of one rollout."""

    prompt: tuple[int, ...]
    cot: tuple[int, ...]
    delimiter: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def tail(self) -> tuple[int, ...]:
        return self.cot + self.delimiter + self.answer

    @property
    def entries(self) -> list[tuple[int, int]]:
        """Row and column of every trainable entry, counted from the first token of the reasoning."""
        return [(w, v) for w in range(len(self.tail)) for v in range(len(self.cot)) if w >= v]

    def matrix(self, values: Tensor, rows: int, columns: int) -> Tensor:
        """The flat vector as a matrix, 0 elsewhere."""
        matrix = torch.zeros(rows, columns, dtype=torch.float64)
        for value, (w, v) in zip(values.tolist(), self.entries, strict=True):
            matrix[w, v] = value
        return matrix


def cases(shapes: Sequence[tuple[int, int, int, int]], vocabulary: int, seed: int = 0) -> list[Case]:
    """Random rollouts of these numbers of (prompt, reasoning, delimiter, answer) tokens; like prompts are the same."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(4, vocabulary, (max(s[0] for s in shapes),), generator=generator).tolist()
    made = []
    for p, *parts in shapes:
        drawn = [tuple(torch.randint(4, vocabulary, (n,), generator=generator).tolist()) for n in parts]
        made.append(Case(tuple(prompt[:p]), *drawn))
    return made


def strengthen(model: Any, factor: float) -> None:
    """Larger weights: a fresh random model says nearly the same whatever it attends to."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight *= factor


class Reference:
    """A Llama (or a Mistral, with its window) as the papers write it, and the probe on top of it."""

    def __init__(self, model: Any, window: int | None = None) -> None:
        self.config, self.window = model.config, window
        self.weights = {name: weight.detach().double().clone() for name, weight in model.state_dict().items()}

    def logits(self, ids: Sequence[int], bias: Tensor) -> Tensor:
        """`[n, V]` for n tokens, with `bias [n, n]` added to the scores of every layer and head."""
        c, n = self.config, len(ids)
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        visible = (j <= i) & (i - j < (self.window or n))
        bias = bias.masked_fill(~visible, -torch.inf)
        half = c.head_dim // 2
        base = c.rope_parameters["rope_theta"]
        frequencies = 1.0 / base ** (torch.arange(half, dtype=torch.float32) / half)
        turns = torch.polar(torch.ones(n, half, dtype=torch.float64), torch.arange(n)[:, None] * frequencies.double())
        x = self.weights["model.embed_tokens.weight"][torch.tensor(ids)]
        for layer in range(c.num_hidden_layers):
            y = self._norm(x, f"layers.{layer}.input_layernorm")
            q, k, v = (self._heads(y, f"layers.{layer}.self_attn.{name}_proj") for name in "qkv")
            groups = c.num_attention_heads // c.num_key_value_heads
            k, v = self._turned(k, turns).repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
            scores = self._turned(q, turns) @ k.transpose(1, 2) / c.head_dim**0.5 + bias
            mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, -1)
            x = x + self._linear(mixed, f"layers.{layer}.self_attn.o_proj")
            y = self._norm(x, f"layers.{layer}.post_attention_layernorm")
            gate, up = (self._linear(y, f"layers.{layer}.mlp.{name}_proj") for name in ("gate", "up"))
            x = x + self._linear(gate * gate.sigmoid() * up, f"layers.{layer}.mlp.down_proj")
        return self._norm(x, "norm") @ self.weights["model.embed_tokens.weight"].T

    def loss(self, case: Case, values: Tensor, scale: float = 10.0) -> Tensor:
        """Eq. 2."""
        ids, start = case.prompt + case.tail, len(case.prompt)
        w, v = torch.tensor(case.entries).T + start
        bias = torch.zeros(len(ids), len(ids), dtype=torch.float64).index_put((w, v), scale * values.clamp(max=0))
        logprobs = self.logits(ids, bias).log_softmax(-1)
        n = len(case.answer)
        return -torch.stack([logprobs[len(ids) - n + k - 1, case.answer[k]] for k in range(n)]).mean()

    def answered(self, case: Case) -> Case:
        """The case with the answer that the model itself finds likeliest: something the mask can bring back."""
        answer: tuple[int, ...] = ()
        for _ in case.answer:
            ids = case.prompt + case.cot + case.delimiter + answer
            answer += (int(self.logits(ids, torch.zeros(len(ids), len(ids), dtype=torch.float64))[-1].argmax()),)
        return replace(case, answer=answer)

    def gradient(self, case: Case, values: Tensor) -> tuple[float, Tensor]:
        """Loss and its gradient in the flat vector."""
        values = values.clone().requires_grad_()
        loss = self.loss(case, values)
        return float(loss.detach()), torch.autograd.grad(loss, values)[0]

    def solve(
        self, case: Case, steps: int, lr: float = 1e-3, c: float = -0.4, betas: tuple[float, float] = (0.6, 0.9999),
        decay: float = 0.05, eps: float = 1e-8,
    ) -> Tensor:  # fmt: skip
        """The flat vector after AdamW (Loshchilov and Hutter, algorithm 2)."""
        h = torch.full((len(case.entries),), c, dtype=torch.float64)
        m, s = torch.zeros_like(h), torch.zeros_like(h)
        for t in range(1, steps + 1):
            _, g = self.gradient(case, h)
            m = betas[0] * m + (1 - betas[0]) * g
            s = betas[1] * s + (1 - betas[1]) * g * g
            step = (m / (1 - betas[0] ** t)) / ((s / (1 - betas[1] ** t)).sqrt() + eps)
            h = h - lr * (step + decay * h)
        return h

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean = (x * x).mean(-1, keepdim=True)
        return x / (mean + self.config.rms_norm_eps).sqrt() * self.weights[f"model.{name}.weight"]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"model.{name}.weight"].T

    def _heads(self, x: Tensor, name: str) -> Tensor:
        return self._linear(x, name).view(len(x), -1, self.config.head_dim).transpose(0, 1)

    @staticmethod
    def _turned(x: Tensor, turns: Tensor) -> Tensor:
        """Rotary positions: the first half of a head's dimensions are real parts, the second half imaginary ones."""
        real, imaginary = x.chunk(2, -1)
        turned = torch.complex(real.contiguous(), imaginary.contiguous()) * turns
        return torch.cat([turned.real, turned.imag], -1)


def reward(values: Tensor, c: float = -0.4) -> float:
    """Eq. 3, restored: 1 - mean(min(H, 0) / c)."""
    shares = [min(value, 0.0) / c for value in values.tolist()]
    return 1 - sum(shares) / len(shares)
