"""Decoding with a cache of fixed shape, in steps that can be captured as a CUDA graph or compiled.

One step runs the model on the last token of each row and draws the next. It reads and writes tensors at fixed addresses
and of fixed shapes, makes no decision by a value and never waits for the device. The host looks every `CHUNK` tokens: it
finds the rows that have ended (by then they have drawn some tokens too many, which are cut off), and where enough of them
have, or the buffers are full, makes a new state with fewer rows or more columns. Both come in few sizes, so that few graphs
are captured and few shapes compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from atmanrl.errors import UserError
from atmanrl.models.cache import is_filled
from atmanrl.models.policy import Policy
from atmanrl.rollouts.decoding import Decoded, Prefill, draw
from atmanrl.rollouts.sampler import SamplingOptions
from atmanrl.rollouts.static_cache import static_cache
from atmanrl.rollouts.stop_criteria import StopCriteria

CHUNK = 16
"""Tokens that are drawn between two looks of the host."""
COLUMNS = 256
"""Buffers have a multiple of so many columns. All of `max_new_tokens` would be read by every token, used or not."""
FEWEST_ROWS = 8
"""A batch of fewer rows is not faster: decoding waits for the weights."""


def why_not_static(policy: Policy, cache: Cache) -> str | None:
    """Why a model cannot decode with a static cache, or None where it can.

    Args:
        policy: built.
        cache: its own, after the prompts.
    """
    attention = policy.model.config.get_text_config()._attn_implementation
    if attention not in ("sdpa", "eager"):
        return f"{attention} attention cuts its keys by their length (sdpa and eager attention take a mask)"
    for i, layer in enumerate(cache.layers):
        if not is_filled(layer):
            return f"layer {i} keeps another state than keys and values ({type(layer).__name__})"
    return None


class DecodingState:
    """All that a decoding step reads and writes, for B rows, C columns of the cache and T tokens.

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
        """A state with some of the rows and with other columns; this one is used up.

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


Step = Callable[[Any, DecodingState, SamplingOptions], None]


def decode_static(
    policy: Policy, read: Prefill, uniforms: Tensor, options: SamplingOptions, criteria: StopCriteria,
    step: Step = decode_step, cuda_graphs: bool = False,
) -> Decoded:  # fmt: skip
    """Decode with a static cache; the tokens are those of `decode_dynamic`.

    Args:
        policy: in eval mode.
        read: the prompts, with a cache for which `why_not_static` is None; it is used up.
        uniforms: `[Q, G, T]` on the policy's device.
        options: how tokens are drawn.
        criteria: where completions end.
        step: `decode_step`, or what a compiler has made of it.
        cuda_graphs: whether steps are captured as a CUDA graph.
    """
    queries, group, limit = uniforms.shape
    width, most = read.mask.shape[1], policy.context_length
    result = Decoded(
        torch.zeros(queries * group, limit, dtype=torch.long), torch.zeros(queries * group, limit),
        torch.full((queries * group,), limit), torch.zeros(queries * group, dtype=torch.bool),
    )  # fmt: skip
    active = list(range(queries * group))  # which completion each row of the state is
    rows = torch.tensor(_filled(active), device=uniforms.device)
    queried = rows // group
    state = DecodingState(
        read.cache, queried, columns_for(width + CHUNK, most), width, (1 - read.mask).sum(1)[queried],
        uniforms.flatten(0, 1)[rows], 0,
    )  # fmt: skip
    state.write(read.logits[queried], options)
    run = _runner(policy, state, options, step, cuda_graphs)
    begin, drawn = 0, 1
    while True:
        running = _look(result, state, active, begin, drawn, criteria)
        if not running or drawn == limit:
            return result
        count = min(CHUNK, limit - drawn)
        kept, columns = _filled(running), state.attention_mask.shape[1]
        needed = width + drawn + count - 1
        if len(kept) < len(state.tokens) or needed > columns:
            del run  # a graph holds the state's memory
            active = [active[i] for i in running]
            state = state.resized(kept, max(columns, columns_for(needed, most)), width + drawn - 1, drawn)
            run = _runner(policy, state, options, step, cuda_graphs)
        run(count)
        begin, drawn = drawn, drawn + count


def _look(
    result: Decoded, state: DecodingState, active: list[int], begin: int, drawn: int, criteria: StopCriteria
) -> list[int]:
    """Take over the tokens from `begin` on; returns the state's rows that go on. The host waits for the device here."""
    tokens = state.tokens[:, begin:drawn].cpu()
    logprobs = state.logprobs[:, begin:drawn].cpu()
    running = []
    for i, row in enumerate(active):
        if result.finished[row]:
            continue
        result.tokens[row, begin:drawn], result.logprobs[row, begin:drawn] = tokens[i], logprobs[i]
        end = criteria.first_end(result.tokens[row, :drawn].tolist(), begin)
        if end is None:
            running.append(i)
        else:
            result.lengths[row], result.finished[row] = end + 1, True
            result.logprobs[row, end + 1 :] = 0
    return running


def _filled(rows: list[int]) -> list[int]:
    """Rows and, up to a power of two, the first of them again."""
    return rows + rows[:1] * (filled_size(len(rows)) - len(rows))


def filled_size(rows: int) -> int:
    """How many rows a state has for so many that go on."""
    return max(FEWEST_ROWS, 1 << (rows - 1).bit_length())


def columns_for(needed: int, most: int) -> int:
    """The smallest size of buffers that holds so many columns.

    Args:
        needed: columns; `HFSampler` has refused what does not fit into the model's context.
        most: the model's context, which no buffer exceeds: MPT has a bias for that many columns and no more.
    """
    return min(-(-needed // COLUMNS) * COLUMNS, most)


def _runner(
    policy: Policy, state: DecodingState, options: SamplingOptions, step: Step, cuda_graphs: bool
) -> Callable[[int], None]:
    """What takes so many steps, by a CUDA graph if wanted."""

    def take() -> None:
        step(policy.model, state, options)

    if cuda_graphs:
        return CapturedSteps(take, type(policy.model).__name__)

    def run(count: int) -> None:
        for _ in range(count):
            take()

    return run


class CapturedSteps:
    """Takes steps by replaying a CUDA graph: one launch for all of a step's kernels.

    The first step runs as it is, on a side stream as capturing wants it: libraries set themselves up, kernels are compiled,
    and its token counts. Capturing then records a step without running it.

    Args:
        take: one step, on tensors that stay where they are.
        model: the model's name, for errors.
    """

    def __init__(self, take: Callable[[], None], model: str) -> None:
        self.take, self.model = take, model
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, count: int) -> None:
        """Take so many steps."""
        # weights that autocast has cast within a graph must not be kept for use outside of it
        with torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,
        ):
            if self.graph is None:
                self._warm_up()
                count -= 1
                if count:
                    self._capture()
        for _ in range(count):
            assert self.graph is not None
            self.graph.replay()

    def _warm_up(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.take()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.take()
        except RuntimeError as error:
            raise UserError(
                f"a decoding step of {self.model} cannot be captured as a CUDA graph: "
                f"{str(error).splitlines()[0]} Set data.sampler.init_args.compile: false."
            ) from error
        self.graph = graph
