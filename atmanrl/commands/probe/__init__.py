"""`atmanrl probe`: the saliency of stored traces, by `MaskProbe` alone; a killed run goes on where it stood."""

from atmanrl.commands.probe.command import main

__all__ = ["main"]
