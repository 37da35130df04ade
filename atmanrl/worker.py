"""A function in a process of its own, which can be stopped whatever it does.

The function is named by its dotted path and imported there, so that nothing of it is pickled; only its arguments and
its result travel. The process starts at the first call, stays for the next ones, and is killed when a call takes too
long. That process imports this module and the packages around it, which is why it stands outside of `atmanrl.rewards`,
whose import takes the seconds of torch and transformers.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import multiprocessing
import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

START_SECONDS = 120.0
"""How long the process may take to start and to import the function."""
RUNNER = asyncio.Runner()
"""One event loop for all calls, as in TRL: what a coroutine function keeps (a client, a lock) belongs to its loop."""


class LoadError(Exception):
    """The function could not be imported."""


class FunctionError(Exception):
    """The function raised; the message has the exception, and the file and line where it came up."""


class FunctionTimeoutError(Exception):
    """The function took too long, and was stopped."""


@dataclass
class CallResult:
    """What a call returned and logged.

    Attributes:
        value: what the function returned.
        extras: lists by column, given to `log_extra`.
        metrics: lists of numbers by name, given to `log_metric`.

    Example:
        `CallResult([1.0, None], extras={"words": [12, 40]}, metrics={"mean_words": [26.0]})`
    """

    value: Any
    extras: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)


def load(path: str, options: Mapping[str, Any] | None) -> Callable[..., Any]:
    """Return the function at a dotted path, or what the function there returns for `options`.

    Raises:
        LoadError: there is no such module or function, or it does not take `options`.
    """
    module, _, name = path.rpartition(".")
    try:
        named = getattr(importlib.import_module(module), name)
        if {module.split(".")[0], _home(named)} & sys.stdlib_module_names:
            raise LoadError("it belongs to Python itself and is no reward function")
        function: Callable[..., Any] = named if options is None else named(**options)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"{type(error).__name__}: {error}") from error
    if not callable(function):
        raise LoadError(f"it is no function, but of type {type(function).__name__}")
    return function


def _home(function: object) -> str:
    """The package that defines a function or a class, under whatever name another one imports it."""
    named = inspect.isroutine(function) or inspect.isclass(function)
    return str(getattr(function, "__module__", "") or "").split(".")[0] if named else ""


def call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> CallResult:
    """Call a function, or a coroutine function, with what TRL's trainer gives its rewards to log with.

    Raises:
        FunctionError: it raised.
    """
    extras: defaultdict[str, list[Any]] = defaultdict(list)
    metrics: defaultdict[str, list[float]] = defaultdict(list)

    def log_extra(column: str, values: list[Any]) -> None:
        extras[column].extend(values)

    def log_metric(name: str, value: float) -> None:
        metrics[name].append(value)

    try:
        value = function(**arguments, log_extra=log_extra, log_metric=log_metric)
        if inspect.iscoroutine(value):
            value = RUNNER.run(value)
        value = _plain(value)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise FunctionError(f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})") from error
    return CallResult(value, dict(extras), dict(metrics))


def _plain(value: Any) -> Any:
    """A list, where there is a tensor, an array or whatever TRL could go through; its numbers as Python's own."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return value
    return [one.item() if getattr(one, "shape", None) == () else one for one in value]


class Worker:
    """A function in a process of its own.

    Args:
        path: dotted path of the function.
        options: see `load`.
        environment: variables that the process gets beside those of this one.
    """

    def __init__(
        self, path: str, options: Mapping[str, Any] | None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.path, self.options, self.environment = path, options, environment or {}
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    def __call__(self, arguments: Mapping[str, Any], seconds: float) -> CallResult:
        """Call the function there.

        Raises:
            FunctionTimeoutError: it took longer than `seconds`; its process is killed, and the next call starts another.
            LoadError: it cannot be imported.
            FunctionError: it raised, what it returned cannot be pickled, or its process died.
        """
        if self.pipe is None:
            self._start()
        assert self.pipe is not None
        self.pipe.send(arguments)
        return self._received(seconds)

    def stop(self) -> None:
        """End the process."""
        if self.process is not None and self.pipe is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
        self.process = self.pipe = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy starts a process of its own."""
        return {**self.__dict__, "process": None, "pipe": None}

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads and CUDA may hang
        pipe, far_end = context.Pipe()
        process = context.Process(target=_serve, args=(far_end, self.path, self.options), daemon=True)
        with _variables(self.environment):  # a spawned process inherits them
            process.start()
        self.process, self.pipe = process, pipe
        Finalize(None, process.kill, exitpriority=0)  # at this process's end, for that one ignores its SIGTERM
        far_end.close()
        try:
            self._received(START_SECONDS)
        except FunctionError as error:
            self.stop()
            raise LoadError(str(error)) from error

    def _received(self, seconds: float) -> CallResult:
        assert self.pipe is not None
        try:
            if not self.pipe.poll(seconds):
                self.stop()
                raise FunctionTimeoutError
            answer = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            assert self.process is not None
            self.process.join()
            code = self.process.exitcode
            self.stop()
            raise FunctionError(f"its process ended with status {code}") from error
        if isinstance(answer, str):
            raise FunctionError(answer)
        assert isinstance(answer, CallResult)
        return answer


@contextmanager
def _variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process's environment for a while."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection, path: str, options: Mapping[str, Any] | None) -> None:
    """The process: an answer once the function is there, and one for each call; a text where something failed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C and a cluster's signals are for the run, which ends this process
    try:
        function = load(path, options)
    except LoadError as error:
        pipe.send(str(error))
        return
    pipe.send(CallResult(None))
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:  # the other side is gone
            return
        try:
            pipe.send(call(function, arguments))
        except FunctionError as error:
            pipe.send(str(error))
        except Exception as error:  # what it gave cannot be pickled; nothing of it was sent
            pipe.send(f"{type(error).__name__}: {error}")
