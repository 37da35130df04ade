"""Steps that are recorded once as a CUDA graph and replayed: one launch for all of a step's kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from atmanrl.errors import UserError, first_line


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
                f"{first_line(error)} Set data.sampler.init_args.compile: false."
            ) from error
        self.graph = graph
