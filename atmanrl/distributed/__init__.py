"""One process or many: the FSDP2 strategy, full copies of sharded weights, sharded checkpoints, what all processes know."""

from atmanrl.distributed.collectives import Processes, all_gather, meet, processes
from atmanrl.distributed.copies import gathered, inference_copy
from atmanrl.distributed.failures import FailTogether, fail_together
from atmanrl.distributed.gradients import averaging, clip_gradients
from atmanrl.distributed.sharding import build, full_weights, is_sharded, unsharded
from atmanrl.distributed.strategy import FSDP2Strategy

__all__ = [
    "FSDP2Strategy",
    "FailTogether",
    "Processes",
    "averaging",
    "build",
    "clip_gradients",
    "all_gather",
    "fail_together",
    "full_weights",
    "gathered",
    "inference_copy",
    "is_sharded",
    "meet",
    "processes",
    "unsharded",
]
