"""One process or many: the FSDP2 strategy, gathered weights, checkpoints that travel, and what all processes know."""

from atmanrl.distributed.collectives import Processes, everyone, processes
from atmanrl.distributed.sharding import build, clip_gradients, full_weights, gathered, reducing, whole
from atmanrl.distributed.strategy import FSDP2Strategy

__all__ = [
    "FSDP2Strategy",
    "Processes",
    "build",
    "clip_gradients",
    "everyone",
    "full_weights",
    "gathered",
    "processes",
    "reducing",
    "whole",
]
