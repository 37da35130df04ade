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
    shape: str = "full"  # of the mask: full, column, cot_rows or answer_rows

    @property
    def tail(self) -> tuple[int, ...]:
        return self.cot + self.delimiter + self.answer

    @property
    def groups(self) -> list[list[tuple[int, int]]]:
        """For each number of the flat vector, row and column of the entries at which it stands.

        Rows and columns are counted from the first token of the reasoning.
        """
        t, r = len(self.cot), len(self.tail)
        if self.shape == "column":
            return [[(w, v) for w in range(v, r)] for v in range(t)]
        rows = {"full": range(r), "cot_rows": range(t), "answer_rows": range(t, r)}[self.shape]
        return [[(w, v)] for w in rows for v in range(min(w + 1, t))]

    @property
    def entries(self) -> list[tuple[int, int]]:
        """Row and column of every trainable entry, where each has a number of its own."""
        return [entry for (entry,) in self.groups]

    def dense(self, values: Tensor) -> Tensor:
        """The flat vector as the matrix H, `[R, T]`, 0 where nothing is trainable."""
        w, v, number = torch.tensor([(w, v, k) for k, group in enumerate(self.groups) for w, v in group]).T
        return torch.zeros(len(self.tail), len(self.cot), dtype=torch.float64).index_put((w, v), values[number])

    def column(self, v: int) -> Tensor:
        """1 at the trainable entries of a column, `[R, T]`."""
        cells = torch.zeros(len(self.tail), len(self.cot), dtype=torch.float64)
        for w, u in {cell for group in self.groups for cell in group}:
            cells[w, u] = float(u == v)
        return cells


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
        half = self.config.head_dim // 2
        exact = self.config.rope_parameters["rope_theta"] ** -(torch.arange(half, dtype=torch.float64) / half)
        # A model that was not built within Exact holds them rounded to float32.
        self.frequencies = model.model.rotary_emb.inv_freq.double()
        torch.testing.assert_close(self.frequencies, exact, rtol=1e-6, atol=0)

    def logits(self, ids: Sequence[int], bias: Tensor) -> Tensor:
        """`[n, V]` for n tokens, with `bias [n, n]` added to the scores of every layer and head."""
        c, n = self.config, len(ids)
        i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
        visible = (j <= i) & (i - j < (self.window or n))
        bias = bias.masked_fill(~visible, -torch.inf)
        angles = torch.arange(n)[:, None] * self.frequencies
        turns = torch.polar(torch.ones_like(angles), angles)
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

    def loss_under(self, case: Case, h: Tensor, scale: float = 10.0) -> Tensor:
        """Eq. 2 with `scale * h` added to the scores of the reasoning's columns, for any `h [R, T]` whatever its sign."""
        ids, start = case.prompt + case.tail, len(case.prompt)
        after = len(ids) - start - len(case.cot)
        bias = torch.nn.functional.pad(scale * h, (start, after, start, 0))
        logprobs = self.logits(ids, bias).log_softmax(-1)
        n = len(case.answer)
        return -torch.stack([logprobs[len(ids) - n + k - 1, case.answer[k]] for k in range(n)]).mean()

    def loss(self, case: Case, values: Tensor, scale: float = 10.0) -> Tensor:
        """Eq. 2 under the effective mask."""
        return self.loss_under(case, case.dense(values.clamp(max=0)), scale)

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
        decay: float = 0.05, eps: float = 1e-8, sparsity: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """The flat vector after AdamW (Loshchilov and Hutter, algorithm 2), on Eq. 2 plus what sparsity costs."""
        h = torch.full((len(case.groups),), c, dtype=torch.float64)
        m, s = torch.zeros_like(h), torch.zeros_like(h)
        for t in range(1, steps + 1):
            _, g = self.gradient(case, h)
            free = h.clone().requires_grad_()
            restored = 1 - (free.minimum(torch.zeros_like(free)) / c).mean()
            g = g + sparsity * torch.autograd.grad(restored, free)[0]
            m = betas[0] * m + (1 - betas[0]) * g
            s = betas[1] * s + (1 - betas[1]) * g * g
            step = (m / (1 - betas[0] ** t)) / ((s / (1 - betas[1] ** t)).sqrt() + eps)
            h = h - lr * (step + decay * h)
        return h

    @torch.no_grad()
    def suppression(self, case: Case, c: float) -> list[float]:
        """How much the loss rises when one column alone is at c, for each token."""
        free = self.loss_under(case, 0 * case.column(0))
        return [float(self.loss_under(case, c * case.column(v)) - free) for v in range(len(case.cot))]

    @torch.no_grad()
    def restoration(self, case: Case, c: float, at: float, step: float = 1e-5) -> list[float]:
        """c times the slope of the loss in each column, every trainable entry at `at`: by central differences."""
        columns = [case.column(v) for v in range(len(case.cot))]
        h = at * torch.stack(columns).sum(0)
        ends = [[self.loss_under(case, h + sign * step * column) for sign in (1, -1)] for column in columns]
        return [float(c * (up - down) / (2 * step)) for up, down in ends]

    def integral(self, case: Case, c: float, intervals: int) -> list[float]:
        """c times the sum of each column's mean gradients, on the straight path from c to 0.

        By Boole's rule, on a number of intervals that 4 divides.
        """
        weights = [7, *[32, 12, 32, 14] * (intervals // 4 - 1), 32, 12, 32, 7]
        means = torch.zeros(len(case.tail), len(case.cot), dtype=torch.float64)
        for k, weight in enumerate(weights):
            h = torch.full_like(means, c * k / intervals) * sum(case.column(v) for v in range(len(case.cot)))
            h.requires_grad_()
            means += torch.autograd.grad(self.loss_under(case, h), h)[0] * weight * 2 / 45 / intervals
        return [float((c * means * case.column(v)).sum()) for v in range(len(case.cot))]

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


def reward(values: Tensor, c: float = -0.4, orientation: str = "restored") -> float:
    """Eq. 3: mean(min(H, 0) / c) as printed, or 1 minus it, restored."""
    shares = [min(value, 0.0) / c for value in values.tolist()]
    mean = sum(shares) / len(shares)
    return 1 - mean if orientation == "restored" else mean
