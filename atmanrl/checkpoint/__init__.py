"""Checkpoints of a run: how one is written, which is the newest whole one, what is read from it, what may go on from it.

- `files`: their names, which of them are whole, how a finished one takes its place.
- `reading`: what a file holds, and whether that fits the run.
- `resume`: options that were changed since, and whether they may be.
- `random_state`, `interruption`: what else a run needs to go on, and the signals that end it.

When they are written is the business of a callback (`atmanrl.callbacks.RunCheckpoint`); what sharded ones hold is that of
`atmanrl.distributed.slices`.
"""
