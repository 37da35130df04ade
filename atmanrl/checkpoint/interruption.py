"""The signals by which a user or a cluster ends a run, and the exit status that each asks for."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from atmanrl.errors import Interrupted

EXIT_STATUS = 75
"""The status of a run that a cluster interrupted and that was saved: EX_TEMPFAIL of sysexits.h, "try again later"."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interruption:
    """Notes SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) during training.

    Lightning's own handlers, under SLURM, save in the middle of whatever runs and put the job into the queue again by
    themselves; these only set a flag, and the run ends where its state is whole. A second Ctrl-C ends it at once.

    Attributes:
        received: the name of the first signal that came.
    """

    def __init__(self) -> None:
        self.received: str | None = None

    @property
    def status(self) -> int:
        """The exit status that the signal asks for: 130 after a user's Ctrl-C, 75 after any other."""
        return 128 + signal.SIGINT if self.received == signal.SIGINT.name else EXIT_STATUS

    def install(self) -> None:
        """Take the signals over, also from Lightning, which restores all handlers when the trainer is done."""
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # a shell lets its background jobs ignore Ctrl-C, which is meant for another
                if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._note)

    def end_at_once(self) -> None:
        """Let SIGTERM and SIGUSR1 end a command that has nothing to save; Ctrl-C does so by itself."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        raise Interrupted(f"{name}: interrupted; nothing of this evaluation is kept.", EXIT_STATUS)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.received is None:
            self.received = name
            again = " Ctrl-C again ends it at once, without saving." if number == signal.SIGINT else ""
            # not `print`, which must not be called again while it is being interrupted
            os.write(2, f"atmanrl: note: {name}: the run saves what is whole and ends.{again}\n".encode())
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
