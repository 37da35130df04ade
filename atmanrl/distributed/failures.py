"""When one process of a run fails, all of them end at once, with the first error's text."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from contextlib import suppress

import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from torch.distributed.distributed_c10d import _abort_process_group, _get_default_store

from atmanrl.distributed.collectives import Processes, processes
from atmanrl.errors import UserError
from atmanrl.io.terminal import say_error

PERIOD = 0.5
"""Seconds between two looks at the store."""
PATIENCE = 10.0
"""Seconds beyond the grace that a process waits for the others to end."""
PREFIX = "atmanrl/failures"


class FailTogether(Callback):
    """Ends a run's other processes where one of them raises; without it they would wait for it, for half an hour.

    A process that raises writes its error into the key-value store that the process group was started from, and waits
    until the others have read it. In each of the others a thread looks there: wherever the main thread is, in a
    collective that nothing can interrupt, in sampling, in a callback, the thread prints the error and ends the process
    with status 1. Whatever raises, and wherever, is treated alike: a reward, a NaN in sampling, a full disk.

    Where all processes raise, each on its own account, all keep their own exception. `GRPOModule` and `MaskProbe` bring
    this callback along; a process that is killed by a signal cannot say so.

    Args:
        grace_seconds: how long the others may take to raise by themselves.
    """

    def __init__(self, grace_seconds: float = 5.0) -> None:
        self.grace_seconds = grace_seconds
        self._watch: Watch | None = None

    def begin(self) -> None:
        """Watch over the run that is about to start."""
        self.end()
        self._watch = Watch(self.grace_seconds)
        self._watch.start()

    def end(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.over.set()
            self._watch = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch no longer: the run is over."""
        self.end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others, and wait for them to end."""
        if self._watch is not None:
            if self._watch.ending.is_set():  # what is raised here is but the connection that broke
                self._watch.join()
            self.end()
            announce(exception, self.grace_seconds)


def fail_together(trainer: Trainer) -> list[Callback]:
    """Begin to watch over a run of several processes; return the callback, for a module's `configure_callbacks`."""
    if trainer.num_nodes * trainer.num_devices == 1:
        return []
    own = next((callback for callback in trainer.callbacks if isinstance(callback, FailTogether)), None)  # type: ignore[attr-defined]
    callback = own or FailTogether()
    callback.begin()
    return [] if own else [callback]


class Watch(threading.Thread):
    """Looks for another process's failure, and ends this process after the grace.

    Args:
        grace_seconds: how long this process may take to raise by itself.

    Attributes:
        over: to be set when this process has failed by itself, or the run is over.
        ending: set when the thread has begun to end this process.
    """

    def __init__(self, grace_seconds: float) -> None:
        super().__init__(name="atmanrl-failures", daemon=True)
        self.grace_seconds, self.over, self.ending = grace_seconds, threading.Event(), threading.Event()

    def run(self) -> None:
        """Wait for the process group, then look until the run is over."""
        while not dist.is_initialized():
            if self.over.wait(PERIOD):
                return
        # the store goes with the first process: what is done by then needs no watching
        with suppress(RuntimeError):
            ledger = Ledger()
            while not self.over.wait(PERIOD):
                if ledger.raised() and not self.over.wait(self.grace_seconds):
                    self._exit(ledger)

    def _exit(self, ledger: Ledger) -> None:
        """End this process, whatever its main thread is doing, and the processes of its reward functions."""
        self.ending.set()
        say_error(ledger.end())
        for child in multiprocessing.active_children():
            child.kill()
        if ledger.me.rank == 0:  # which keeps the store, and so goes last
            ledger.wait(self.grace_seconds + PATIENCE)
            time.sleep(PERIOD)
        os._exit(1)


class Ledger:
    """Who has failed, in the store of the process group; through a connection of its own, for a thread of its own.

    Processes that raise together and go on with another run have failed once each; the next failure is another round.

    Attributes:
        me: this process.
    """

    def __init__(self) -> None:
        self.me: Processes = processes()
        self._store = _get_default_store().clone()  # type: ignore[attr-defined]
        self._own = f"{PREFIX}/of/{self.me.rank}"
        self._round = f"{PREFIX}/{self._store.add(self._own, 0)}"

    def raised(self) -> int:
        """Return how many processes have raised in this round, or were ended for it."""
        return self._store.add(f"{self._round}/raised", 0)

    def ended(self) -> int:
        """Return how many of them were ended."""
        return self._store.add(f"{self._round}/ended", 0)

    def add(self, text: str) -> None:
        """Note that this process raised; the first one's text is kept."""
        self._store.compare_set(f"{self._round}/text", "", text)
        self._store.add(self._own, 1)
        self._store.add(f"{self._round}/raised", 1)

    def end(self) -> str:
        """Note that this process is ended, and return the text of the first that raised."""
        text = self._store.get(f"{self._round}/text").decode()
        self._store.add(f"{self._round}/ended", 1)
        self._store.add(f"{self._round}/raised", 1)
        return text

    def wait(self, seconds: float) -> None:
        """Wait until all have raised or are ended, but no longer than that: one may have been killed."""
        deadline = time.monotonic() + seconds
        while self.raised() < self.me.count and time.monotonic() < deadline:
            time.sleep(PERIOD / 5)


def announce(error: BaseException, grace_seconds: float) -> None:
    """Tell the other processes of this one's error, and wait until all have raised or are ended."""
    if processes().count == 1:
        return
    # without the store, which goes with the first process, nobody is left who could read it; the error goes on its way
    with suppress(RuntimeError):
        ledger = Ledger()
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        ledger.add(f"process {ledger.me.rank} of {ledger.me.count} failed, and all end: {text}")
        ledger.wait(grace_seconds + PATIENCE)
        if ledger.ended() and dist.get_backend() == "nccl":
            _abort_process_group()  # to destroy it in good order, NCCL would wait for those that are gone
