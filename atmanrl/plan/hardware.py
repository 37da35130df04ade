"""What a run is to run on, and what it is taken to say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atmanrl.errors import UserError

LONGEST_BY_LOG = 0.39
"""How the longest of n completions grows, in averages, with the logarithm of n. Among GSM8K's written solutions the longest
of 2, 8, 64 and 512 is 1.26, 1.83, 2.66 and 3.41 averages long."""


@dataclass(frozen=True)
class Hardware:
    """What the run is to run on.

    Attributes:
        devices: in all, one process each.
        memory_bytes: of each.
        flops_per_second: of each, dense, in the dtype of computation: the data sheet's.
        bandwidth_bytes_per_second: between a device and its memory.
        link_bytes_per_second: between a device and the others.
        efficiency: share of the FLOP/s that large matrix products reach, all else counted in.
        launch_seconds: from the start of one kernel to that of the next, by Python and without CUDA graphs: the least that
            a kernel takes, however small.
    """

    devices: int
    memory_bytes: float
    flops_per_second: float
    bandwidth_bytes_per_second: float
    link_bytes_per_second: float = 50e9
    efficiency: float = 0.4
    launch_seconds: float = 2e-5

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        if self.devices < 1:
            raise UserError(f"--devices is {self.devices}; give at least 1.")
        if not 0 < self.efficiency <= 1:
            raise UserError(f"--efficiency is {self.efficiency}; give a share above 0 and up to 1.")
        if self.launch_seconds < 0:
            raise UserError(f"--launch_us is {self.launch_seconds * 1e6:g}; give microseconds from 0.")

    def compute_seconds(self, operations: float) -> float:
        """Of matrix products."""
        return operations / (self.flops_per_second * self.efficiency)


@dataclass(frozen=True)
class Lengths:
    """Tokens, on average, that the plan takes for granted."""

    prompt: float = 160.0
    completion: float = 250.0
    answer: float = 3.0
    delimiter: float = 2.0

    def longest(self, completions: float) -> float:
        """Tokens of the longest of so many completions, where nothing cuts it off."""
        return self.completion * (1 + LONGEST_BY_LOG * math.log(max(1.0, completions)))
