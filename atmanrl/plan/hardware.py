"""The machine of a planned run, and the lengths of its prompts and completions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atmanrl.errors import UserError

LONGEST_BY_LOG = 0.39
"""How the longest of n completions grows, in averages, with the logarithm of n. Among GSM8K's written solutions the longest
of 2, 8, 64 and 512 is 1.26, 1.83, 2.66 and 3.41 averages long."""


@dataclass(frozen=True)
class Kind:
    """What is taken for granted of a kind of device.

    Attributes:
        efficiency: share of the FLOP/s that matrix products reach.
        launch_seconds: least time of a kernel.
        flops_per_byte: FLOP/s for each byte/s of memory bandwidth.
        overlaps: whether it computes, reads memory and is sent the next kernel at the same time.
        probe_efficiency: share of `efficiency` that a gradient of the probe reaches.

    Example:
        `Kind(efficiency=0.4, launch_seconds=2e-5, flops_per_byte=295.0, overlaps=True, probe_efficiency=0.65)`
    """

    efficiency: float
    launch_seconds: float
    flops_per_byte: float
    overlaps: bool
    probe_efficiency: float


GPU = Kind(efficiency=0.4, launch_seconds=2e-5, flops_per_byte=295.0, overlaps=True, probe_efficiency=0.65)
"""An H100 SXM: 989 TFLOP/s and 3.35 TB/s. At 3B's shape it took 20 to 25 us a kernel without a graph, and a gradient of the
probe reached 26 % of its FLOP/s (`experiments/gpu`)."""
CPU = Kind(efficiency=0.35, launch_seconds=1e-5, flops_per_byte=26.0, overlaps=False, probe_efficiency=1.0)
"""A core of x86-64 that reaches 89 GFLOP/s in a large matrix product and 3.35 GB/s in a copy, and takes 11 us for a kernel
(`experiments/benchmarks/plan_check.py`): of its FLOP/s, updates of `configs/laptop.yaml` reached 37 % and the probe 35 %."""


@dataclass(frozen=True)
class Hardware:
    """The devices that a run is planned for.

    Attributes:
        devices: in all, one process each.
        memory_bytes: of each.
        flops_per_second: of each, dense, in the dtype of computation: the data sheet's.
        bandwidth_bytes_per_second: between a device and its memory.
        link_bytes_per_second: between a device and the others.
        efficiency: share of the FLOP/s that large matrix products reach, all else counted in.
        launch_seconds: from the start of one kernel to that of the next, by Python and without CUDA graphs: the least that
            a kernel takes, however small.
        overlaps: see `Kind`, as is probe_efficiency.

    Example:
        `Hardware(devices=8, memory_bytes=80e9, flops_per_second=989e12, bandwidth_bytes_per_second=3.35e12)`
    """

    devices: int
    memory_bytes: float
    flops_per_second: float
    bandwidth_bytes_per_second: float
    link_bytes_per_second: float = 50e9
    efficiency: float = GPU.efficiency
    launch_seconds: float = GPU.launch_seconds
    overlaps: bool = GPU.overlaps
    probe_efficiency: float = GPU.probe_efficiency

    def __post_init__(self) -> None:
        """Refuse values that no machine has."""
        if self.devices < 1:
            raise UserError(f"--devices is {self.devices}; give at least 1.")
        if not 0 < self.efficiency <= 1:
            raise UserError(f"--efficiency is {self.efficiency}; give a share above 0 and up to 1.")
        if self.launch_seconds < 0:
            raise UserError(f"--launch_us is {self.launch_seconds * 1e6:g}; give microseconds from 0.")

    def compute_seconds(self, operations: float) -> float:
        """Return the seconds that matrix products of so many FLOPs take."""
        return operations / (self.flops_per_second * self.efficiency)

    def step_seconds(self, operations: float, bytes_read: float, launches: float) -> float:
        """Return the seconds of a decoding step: its FLOPs, its reading and its kernels, together or one after the other."""
        parts = (
            self.compute_seconds(operations), bytes_read / self.bandwidth_bytes_per_second, launches * self.launch_seconds,
        )  # fmt: skip
        return max(parts) if self.overlaps else sum(parts)


@dataclass(frozen=True)
class Lengths:
    """Average tokens that a plan assumes.

    Attributes:
        prompt: of a prompt.
        completion: of a completion, answer included.
        answer: of its answer.
        delimiter: of the delimiter before it.

    Example:
        `Lengths(prompt=160.0, completion=250.0)`
    """

    prompt: float = 160.0
    completion: float = 250.0
    answer: float = 3.0
    delimiter: float = 2.0

    def longest(self, completions: float) -> float:
        """Return the tokens of the longest of so many completions, where none is cut off."""
        return self.completion * (1 + LONGEST_BY_LOG * math.log(max(1.0, completions)))
