"""The pulse of long work: sampling, probing and learning say how far they are, while an update is under way.

Whoever listens may show it, or end the work by an exception: so a bar moves within an update, and a signal need not wait for
its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str, int, int], None]
"""Is called with the name of the work, how much of it is done, and how much there is; 0 where that is open."""

_listeners: list[Listener] = []
_changing = 0


def beat(work: str, done: int = 0, total: int = 0) -> None:
    """Tell all listeners how far some work is.

    Args:
        work: `sampling`, `probing`, `scoring` or `learning`.
        done: how much is done.
        total: how much there is; 0 where that is open.
    """
    for listener in tuple(_listeners):
        listener(work, done, total)


def listen(listener: Listener) -> None:
    """Call a function at every beat, until `stop_listening`."""
    _listeners.append(listener)


def stop_listening(listener: Listener) -> None:
    """Call a function no more; nothing happens where it was not called."""
    if listener in _listeners:
        _listeners.remove(listener)


@contextmanager
def changing() -> Iterator[None]:
    """Mark what must be done as a whole, such as the optimizer's steps of an update."""
    global _changing
    _changing += 1
    try:
        yield
    finally:
        _changing -= 1


def is_changing() -> bool:
    """Whether something is being changed that must not be left half done."""
    return _changing > 0
