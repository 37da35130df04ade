"""How every command ends: with a status, and with one sentence where something went wrong."""

from __future__ import annotations

import errno
import linecache
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import TextIO

from atmanrl.commands.options.errors import OptionError
from atmanrl.errors import Interrupted, UserError
from atmanrl.io.terminal import say_end, say_error, write_anything

INTERRUPTED = 130
"""The status of a command that Ctrl-C has ended: 128 and SIGINT's number."""
WRONG_OPTION = 2
"""The status of a command whose options cannot be read, as argparse has it."""
BROKEN_PIPE = 141
"""The status of a command whose reader has gone (`| head -1`): 128 and SIGPIPE's number."""

_OF_OPTIONS = (ValueError, TypeError, AttributeError, ImportError)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    **dict.fromkeys(_FULL, "no space is left on the disk; make room, then give the command again"),
    errno.EFBIG: "the file is larger than the disk, or a limit on this process, allows; choose another folder",
    errno.EROFS: "the disk can be read only; choose another folder",
    errno.EACCES: "permission is denied; choose another path, or have it permitted",
    errno.EPERM: "permission is denied; choose another path, or have it permitted",
    errno.ENOENT: "there is no such file or folder",
    errno.ENOTDIR: "a part of this path is a file, and no folder",
    errno.EISDIR: "this is a folder; give a file",
    errno.EEXIST: "this exists already; choose another path",
    errno.ENAMETOOLONG: "this name is too long",
    errno.ELOOP: "this is a link that leads back to itself",
}
_REFUSAL = re.compile(
    r"^ *- (?!Expected a |Does not validate )(?:Problem with given class_path '(?:\w+\.)*(\w+)':\s*)?(\S.*)$",
    re.MULTILINE,
)
"""In the parser's error: the class that was refused, if it is named, and the reason."""


def run(work: Callable[[], int]) -> int:
    """Run a command; print an error that a user can mend as one sentence on standard error.

    Args:
        work: the command; it returns the exit status.

    Returns:
        Its status; 1 after an error that a user can mend, 2 where that is an option's name or type, 130 after Ctrl-C, 141
        where nobody reads what is printed, 75 where a signal has ended a run that can go on.

    Raises:
        Exception: any other error, with its traceback: the fault is in this package.
    """
    for stream in (sys.stdout, sys.stderr):
        write_anything(stream)
    interrupted = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    default = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if default:
        signal.signal(signal.SIGINT, interrupt)
    try:
        status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return BROKEN_PIPE
    except Interrupted as error:
        say_end(error)
        return error.status
    except OptionError as error:
        say_error(error)
        print(error.advice, file=sys.stderr)
        return WRONG_OPTION
    except BaseException as error:
        # Lightning makes a SystemExit with status 1 out of Ctrl-C, and libraries in the midst of their import all sorts
        if interrupted or any(isinstance(each, KeyboardInterrupt) for each in _chain(error)):
            say_end("interrupted.")
            return INTERRUPTED
        sentence = mendable(error) if isinstance(error, Exception) else None
        if sentence is None:
            raise
        say_error(sentence)
        return 1
    finally:
        if default:
            signal.signal(signal.SIGINT, before)
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)


def mendable(error: BaseException) -> str | None:
    """Return the sentence for an error that a user can mend, even if a library has wrapped it; None for any other."""
    for each in _chain(error):
        if isinstance(each, UserError):
            return str(each)
        if _is_lightnings(each):
            return " ".join(str(each).split())
        # a disk error beneath another error is not the user's, unless the disk is full
        if isinstance(each, OSError) and (each is error or each.errno in (*_FULL, errno.EROFS)):
            return disk_sentence(each)
    if str(error).startswith("Does not validate against any of the Union"):
        # an option that may be a name or an object: the parser chains the name's refusal, and quotes the object's
        said = _REFUSAL.search(str(error))
        return None if said is None else f"{said[1]}: {said[2]}" if said[1] else said[2]
    return None


def disk_sentence(error: OSError) -> str:
    """Return a sentence for an error of the operating system; it names the file."""
    if error.errno is None:  # a library's own, of a download for instance
        return " ".join(str(error).split()) or type(error).__name__
    if error.filename is None and error.errno == errno.ENOENT:
        return "the folder in which the command was started is not there any more; change into another one."
    reason = _REASONS.get(error.errno, error.strerror or str(error))
    return f"{reason}." if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_lightnings(error: BaseException) -> bool:
    """Whether Lightning refuses an option: by an error of its own, or by one of Python's in a `raise` of its code.

    Lightning is not imported to tell.
    """
    module = sys.modules.get("lightning.fabric.utilities.exceptions")
    if module is not None and isinstance(error, module.MisconfigurationException):
        return True
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    if raised is None or not str(raised.tb_frame.f_globals.get("__name__")).startswith("lightning."):
        return False
    line = linecache.getline(raised.tb_frame.f_code.co_filename, raised.tb_lineno)
    return isinstance(error, _OF_OPTIONS) and line.strip().startswith("raise ")


def _flush(stream: TextIO) -> None:
    """Write what is left; where nobody reads it, keep the interpreter from complaining at its end."""
    try:
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):  # a stream that is no file has nothing that could complain
            os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
