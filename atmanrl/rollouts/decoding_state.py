"""All that a decoding step with a static cache reads and writes, and the step itself.

A step runs the model on the last token of each row and draws the next. It reads and writes tensors at fixed addresses and of
fixed shapes, makes no decision by a value and never waits for the device: so it can be captured as a CUDA graph or compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atmanrl.rollouts.decoding import draw
from atmanrl.rollouts.sampler import SamplingOptions
from atmanrl.rollouts.static_cache import static_cache


class DecodingState:
    """What a decoding step reads and writes, for B rows, C columns of the cache and T tokens.

    Attributes:
        cache: keys and values, `[B, heads, C, D]` in each layer.
        column: `[1]`, the cache's column of the token in `input_ids`.
        index: `[1]`, the number of the token that is drawn next.
        input_ids: `[B, 1]`, the tokens drawn last.
        position_ids: `[B, 1]`, their positions, padding not counted.
        attention_mask: `[B, C]`, 0 at the padding before the prompts. That a column is not seen before it is written is
            up to the causal mask, which knows `column`.
        uniforms: `[B, T]`.
        tokens: `[B, T]`, those drawn since this state was made.
        logprobs: `[B, T]`, likewise.
    """

    def __init__(
        self, cache: Cache, rows: Tensor, columns: int, used: int, padding: Tensor, uniforms: Tensor, index: int
    ) -> None:
        device = uniforms.device
        self.column = torch.tensor([used], device=device)
        self.index = torch.tensor([index], device=device)
        self.cache = static_cache(cache, rows, columns, used, self.column)
        self.padding, self.uniforms = padding, uniforms
        self.attention_mask = (torch.arange(columns, device=device) >= padding[:, None]).long()
        self.position_ids = used - padding[:, None]
        self.input_ids = torch.zeros(len(uniforms), 1, dtype=torch.long, device=device)
        self.tokens = torch.zeros(uniforms.shape, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(uniforms.shape, device=device)

    def write(self, logits: Tensor, options: SamplingOptions) -> None:
        """Draw the next token of each row from `logits [B, V]`."""
        uniforms = self.uniforms.index_select(1, self.index)[:, 0]
        drawn, logprobs = draw(logits, uniforms, options)
        self.tokens.index_copy_(1, self.index, drawn[:, None])
        self.logprobs.index_copy_(1, self.index, logprobs[:, None])
        self.input_ids.copy_(drawn[:, None])
        self.index.add_(1)

    def resized(self, rows: Sequence[int], columns: int, used: int, index: int) -> DecodingState:
        """Return a state with some of the rows and with other columns; this one must not be used any more.

        Args:
            rows: numbers of the rows to keep; one may stand several times.
            columns: of the new cache.
            used: columns in use, known to the host without asking the device.
            index: number of the token that is drawn next, likewise.
        """
        chosen = torch.tensor(rows, device=self.index.device)
        state = DecodingState(
            self.cache, chosen, columns, used, self.padding[chosen], self.uniforms[chosen], index
        )  # fmt: skip
        state.input_ids.copy_(self.input_ids[chosen])
        return state


def decode_step(model: Any, state: DecodingState, options: SamplingOptions) -> None:
    """Run the model on each row's last token and draw the next one."""
    logits = model(
        input_ids=state.input_ids, attention_mask=state.attention_mask, position_ids=state.position_ids,
        past_key_values=state.cache, use_cache=True,
    ).logits[:, -1]  # fmt: skip
    state.column.add_(1)
    state.position_ids.add_(1)
    state.write(logits, options)


DecodingStep = Callable[[Any, DecodingState, SamplingOptions], None]
