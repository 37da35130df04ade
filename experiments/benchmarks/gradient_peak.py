"""How near to the processor's peak is the probe's gradient, and what would a gradient written by hand gain?

    OMP_NUM_THREADS=1 python -m experiments.benchmarks.gradient_peak --json experiments/benchmarks/results/gradient_peak.json

A batch as the probe has it: layers of the laptop policy's shape with random weights, and completions behind a cached
prompt, one bias for all layers and heads. Three ways to the gradient in the bias, in turn, by processor time (least of all):

- `autograd`: the operations of transformers' Llama with the probe's own attention (`probe.lean`), differentiated by PyTorch;
- `by hand`: the backward pass written out, one product for queries, keys and values and one for gate and up, no graph;
- `compiled`: the same, with whatever lies between two products compiled into one kernel by inductor (needs a C++ compiler).

The share of the peak counts the products' operations alone; the peak is what this machine reaches on squares of 1,024.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atmanrl.probe.lean import constant_past, lean_attention
from experiments.benchmarks.plan_check import best_seconds

ROWS, TOKENS, PAST = 16, 64, 50
LAYERS, WIDTH, HEADS, INNER = 4, 128, 4, 352
HEAD = WIDTH // HEADS
EPS = 1e-6


@dataclass
class Layer:
    """One layer's weights, and the cached keys and values of the prompts `[B, H, P, D]`."""

    norm: Tensor
    qkv: Tensor
    out: Tensor
    norm_inner: Tensor
    gate_up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor

    @classmethod
    def drawn(cls) -> Layer:
        """Random weights that keep the states' size."""
        weights = [torch.randn(rows, columns) * columns**-0.5 for rows, columns in _SHAPES]
        past = [torch.randn(ROWS, HEADS, PAST, HEAD) for _ in range(2)]
        return cls(
            torch.rand(WIDTH) + 0.5, weights[0], weights[1], torch.rand(WIDTH) + 0.5, weights[2], weights[3], *past
        )


_SHAPES = ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (2 * INNER, WIDTH), (WIDTH, INNER))


def operations() -> float:
    """Multiplications and additions of the products, forward and backward, in a pass over the batch."""
    positionwise = 2 * 2 * ROWS * TOKENS * sum(rows * columns for rows, columns in _SHAPES)
    # forward scores and mixture; backward the probabilities' and the queries' gradient over all keys, those of keys and
    # values over the completion's own
    attention = 2 * ROWS * HEADS * TOKENS * HEAD * (4 * (PAST + TOKENS) + 2 * TOKENS)
    return float(LAYERS * (positionwise + attention))


def rotary() -> tuple[Tensor, Tensor]:
    """Cosines and sines of the completion's positions."""
    angles = torch.arange(PAST, PAST + TOKENS)[:, None] / 10_000 ** (torch.arange(0, HEAD, 2) / HEAD)
    both = torch.cat([angles, angles], -1)
    return both.cos(), both.sin()


def rotated(states: Tensor) -> Tensor:
    """The half that rotary embedding adds with the sines."""
    left, right = states.chunk(2, -1)
    return torch.cat([-right, left], -1)


class Batch:
    """The layers, what they read, and the gradient of the loss in what they write."""

    def __init__(self) -> None:
        self.layers = [Layer.drawn() for _ in range(LAYERS)]
        self.states, self.loss_gradient = torch.randn(ROWS, TOKENS, WIDTH), torch.randn(ROWS, TOKENS, WIDTH)
        self.cos, self.sin = rotary()
        self.causal = torch.zeros(TOKENS, PAST + TOKENS)
        self.causal[:, PAST:] = torch.full((TOKENS, TOKENS), -1e9).triu(1)

    def bias(self, mask: Tensor) -> Tensor:
        """The mask `[B, T, T]` among the completion's tokens, with the causal one, `[B, 1, T, P + T]`."""
        return self.causal + nn.functional.pad(mask, (PAST, 0))[:, None]

    def autograd(self, mask: Tensor) -> Tensor:
        """The gradient by PyTorch, through operations as transformers writes them."""
        mask = mask.detach().requires_grad_()
        bias, states, module = self.bias(mask), self.states, nn.Module()
        with constant_past():
            for layer in self.layers:
                normed = _rms(states, layer.norm)
                heads = (nn.functional.linear(normed, part) for part in layer.qkv.chunk(3))
                query, key, value = (each.view(ROWS, TOKENS, HEADS, HEAD).transpose(1, 2) for each in heads)
                query, key = (each * self.cos + rotated(each) * self.sin for each in (query, key))
                key, value = torch.cat([layer.keys, key], 2), torch.cat([layer.values, value], 2)
                mixed, _ = lean_attention(module, query, key, value, bias)
                states = states + nn.functional.linear(mixed.reshape(ROWS, TOKENS, WIDTH), layer.out)
                normed = _rms(states, layer.norm_inner)
                gate, up = (nn.functional.linear(normed, part) for part in layer.gate_up.chunk(2))
                states = states + nn.functional.linear(nn.functional.silu(gate) * up, layer.down)
        return torch.autograd.grad((states * self.loss_gradient).sum(), mask)[0]


def _rms(states: Tensor, weight: Tensor) -> Tensor:
    return weight * (states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + EPS))


class ByHand:
    """The same gradient with its backward pass written out; `compiled` compiles what lies between the products."""

    def __init__(self, batch: Batch, compiled: bool) -> None:
        self.batch, self.compiled = batch, compiled

    def _run(self, kernel: Callable[..., Any], *inputs: Any) -> Any:
        return (_compiled(kernel) if self.compiled else kernel)(*inputs)

    @torch.no_grad()
    def __call__(self, mask: Tensor) -> Tensor:
        """The gradient in the mask `[B, T, T]`."""
        batch = self.batch
        cos, sin, bias, states, kept = batch.cos, batch.sin, batch.bias(mask), batch.states.view(-1, WIDTH), []
        for layer in batch.layers:
            before = states
            normal, root = self._run(normed, before, layer.norm)
            query, key, value = self._run(split, normal @ layer.qkv.T, cos, sin)
            key, value = torch.cat([layer.keys, key], 2), torch.cat([layer.values, value], 2)
            shares = self._run(softmax, query @ key.transpose(2, 3), bias)
            between = torch.addmm(before, (shares @ value).transpose(1, 2).reshape(-1, WIDTH), layer.out.T)
            normal, root_inner = self._run(normed, between, layer.norm_inner)
            gate_up = normal @ layer.gate_up.T
            kept.append((before, root, query, key, value, shares, between, root_inner, gate_up))
            states = torch.addmm(between, self._run(swiglu, gate_up), layer.down.T)
        slope, total = batch.loss_gradient.view(-1, WIDTH), torch.zeros_like(mask)
        for number in reversed(range(LAYERS)):
            layer, (before, root, query, key, value, shares, between, root_inner, gate_up) = (
                batch.layers[number],
                kept[number],
            )
            inner = self._run(swiglu_gradient, slope @ layer.down, gate_up) @ layer.gate_up
            slope = slope + self._run(norm_gradient, inner, between, root_inner, layer.norm_inner)
            mixed = (slope @ layer.out).view(ROWS, TOKENS, HEADS, HEAD).transpose(1, 2)
            scores, of_mask = self._run(softmax_gradient, mixed @ value.transpose(2, 3), shares)
            total += of_mask
            if number:
                own = scores[..., PAST:].transpose(2, 3) @ query, shares[..., PAST:].transpose(2, 3) @ mixed
                heads = self._run(joined, scores @ key, *own, cos, sin)
                slope = slope + self._run(norm_gradient, heads @ layer.qkv, before, root, layer.norm)
        return total


@functools.cache
def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(kernel, dynamic=False)


def normed(states: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """RMSNorm, and the reciprocal root that its gradient needs."""
    root = torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + EPS)
    return states * root * weight, root


def norm_gradient(slope: Tensor, states: Tensor, root: Tensor, weight: Tensor) -> Tensor:
    """The gradient of RMSNorm in its input."""
    slope = slope * weight
    return root * slope - states * root**3 * (slope * states).mean(-1, keepdim=True)


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up."""
    gate, up = gate_up.chunk(2, -1)
    return nn.functional.silu(gate) * up


def swiglu_gradient(slope: Tensor, gate_up: Tensor) -> Tensor:
    """Its gradient in gate and up."""
    gate, up = gate_up.chunk(2, -1)
    sigmoid = gate.sigmoid()
    return torch.cat([slope * up * (sigmoid + gate * sigmoid * (1 - sigmoid)), slope * gate * sigmoid], -1)


def softmax(scores: Tensor, bias: Tensor) -> Tensor:
    """The biased scores' softmax."""
    return (scores + bias).softmax(-1)


def softmax_gradient(slope: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Its gradient in the scores, and in the mask, which all heads share."""
    scores = shares * (slope - (slope * shares).sum(-1, keepdim=True))
    return scores, scores[..., PAST:].sum(1)


def split(states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, `[B, H, T, D]`; queries are scaled."""
    query, key, value = states.view(ROWS, TOKENS, 3, HEADS, HEAD).permute(2, 0, 3, 1, 4)
    return (query * cos + rotated(query) * sin) * HEAD**-0.5, key * cos + rotated(key) * sin, value


def joined(query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient in what `split` reads."""
    query, key = (each * cos - rotated(each * sin) for each in (query * HEAD**-0.5, key))
    return torch.stack([query, key, value]).permute(1, 3, 0, 2, 4).reshape(-1, 3 * WIDTH)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="The probe's gradient against the processor's peak, and by hand.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=40)
    args = parser.parse_args()
    torch.manual_seed(0)
    batch, square = Batch(), torch.randn(1024, 1024)
    mask = -torch.rand(ROWS, TOKENS, TOKENS)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "autograd": batch.autograd,
        "by_hand": ByHand(batch, False),
        "compiled": ByHand(batch, True),
    }
    found = {name: way(mask) for name, way in ways.items()}
    for gradient in found.values():
        torch.testing.assert_close(gradient, found["autograd"], rtol=1e-4, atol=1e-4)
    peak = 2 * 1024**3 / best_seconds(functools.partial(torch.mm, square, square), args.repeats)
    rounds = [
        {name: best_seconds(functools.partial(way, mask), 4) for name, way in ways.items()}
        for _ in range(args.repeats // 4)
    ]
    seconds = {name: min(each[name] for each in rounds) for name in ways}
    results = {
        "command": shlex.join(["python", "-m", "experiments.benchmarks.gradient_peak", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "operations": operations(),
        "peak_gflops": peak / 1e9,
        "milliseconds": {name: 1e3 * each for name, each in seconds.items()},
        "share_of_peak": {name: operations() / each / peak for name, each in seconds.items()},
    }
    print(json.dumps(results, indent=2))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
