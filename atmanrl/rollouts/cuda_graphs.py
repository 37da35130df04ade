"""Steps that are recorded once as a CUDA graph and replayed: one launch for all of a step's kernels."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from atmanrl.errors import UserError, first_line

log = logging.getLogger("atmanrl")
_REFUSED: set[str] = set()
"""Models of which this has been said."""


class CapturedSteps:
    """Takes steps by replaying a CUDA graph: one launch for all of a step's kernels.

    The first step runs as it is, on a side stream as capturing wants it: libraries set themselves up, kernels are compiled,
    and its token counts. Capturing then records a step without running it.

    Args:
        take: one step, on tensors that stay where they are.
        model: the model's name, for messages.
        required: whether a step that cannot be captured is an error; if not, steps are taken as they are, with a warning.

    Raises:
        UserError: on the second step, which cannot be captured though it must be.
    """

    def __init__(self, take: Callable[[], None], model: str, required: bool = True) -> None:
        self.take, self.model, self.required = take, model, required
        self.graph: torch.cuda.CUDAGraph | None = None
        self.refused = False

    def __call__(self, count: int) -> None:
        """Take so many steps."""
        # weights that autocast has cast within a graph must not be kept for use outside of it
        with torch.autocast(
            "cuda",
            dtype=torch.get_autocast_dtype("cuda"),
            enabled=torch.is_autocast_enabled("cuda"),
            cache_enabled=False,
        ):
            if self.graph is None and not self.refused:
                self._warm_up()
                count -= 1
                if count:
                    self._capture()
            if self.refused:
                for _ in range(count):
                    self.take()
                return
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
            what = f"a decoding step of {self.model} cannot be captured as a CUDA graph: {first_line(error)}"
            if self.required:
                raise UserError(f"{what} Set data.sampler.init_args.compile: false.") from error
            self.refused = True
            if self.model not in _REFUSED:
                log.warning("%s Its steps are taken one kernel at a time.", what)
                _REFUSED.add(self.model)
            return
        self.graph = graph
