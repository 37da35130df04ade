"""Checkpoints of a run: when they are written, which one is the newest whole one, and what goes on from it."""

from atmanrl.checkpoint.callback import RunCheckpoint

__all__ = ["RunCheckpoint"]
