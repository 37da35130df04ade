"""Sweeps: many runs over a space of options, on this machine, by Optuna; the files are W&B's sweep files."""

from atmanrl.sweep.space import Sweep, SweepError, load

__all__ = ["Sweep", "SweepError", "load"]
