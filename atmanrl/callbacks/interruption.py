"""The signals by which a cluster announces the end of a job."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

EXIT_STATUS = 75
"""The status of a run that was interrupted and saved: EX_TEMPFAIL of sysexits.h, "try again later"."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """A run has saved its state and ends because a signal asked for it."""


class Interruption:
    """Notes SIGTERM and SIGUSR1 during training.

    Lightning's own handlers, with SLURM, save in the middle of whatever runs and put the job into the queue again by
    themselves; these only set a flag, and the run ends between two updates.

    Attributes:
        received: the name of the first signal that came.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    def install(self) -> None:
        """Take the signals over, from Lightning, too, which gives all of them back when the trainer is done."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number).name
            # print is not allowed to be interrupted by itself
            os.write(2, f"atmanrl: note: {self.received}: the run ends after this update.\n".encode())
