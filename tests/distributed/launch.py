"""Starts a script on several gloo processes of this machine, and never waits long for a deadlock.

As a script, it is what these processes are forked from: the seconds that the script's imports take are spent once.
"""

import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

ROOT = Path(__file__).parents[2]
GROUP_TIMEOUT = 60
"""Seconds after which a process gives up waiting for the others."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(script: Path, *args: str, processes: int = 2, timeout: float = 220) -> list[str]:
    """What each process printed, in order of rank; an error of one of them, or the timeout, is an AssertionError."""
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes), "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": "test", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f"{rank}.txt" for rank in range(processes)]
        command = [sys.executable, __file__, folder, str(script), *map(str, args)]
        running = subprocess.Popen(command, env=shared, cwd=ROOT, start_new_session=True)
        try:
            status = running.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{script.name} hangs: nothing after {timeout} s") from None
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
        said = [out.read_text() if out.exists() else "" for out in outs]
    # the process that fails first is the one that says why; the others only miss it
    assert status == 0, "\n".join(f"--- process {rank}\n{each[-4000:]}" for rank, each in enumerate(said))
    return said


def forked(rank: int, out: Path, script: str) -> int:
    """The number of a process that runs the script."""
    if number := os.fork():
        return number
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY | os.O_APPEND), stream)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    rank_zero_only.rank = rank  # which was looked up when Lightning was imported
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.exit(status)


def main(folder: Path, script: str) -> int:
    """Run a script on all processes; 0 where all ended well."""
    runpy.run_path(script, run_name="imported")
    ranks = range(int(os.environ["WORLD_SIZE"]))
    numbers = [forked(rank, folder / f"{rank}.txt", script) for rank in ranks]
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])) for number in numbers)


if __name__ == "__main__":
    place, sys.argv = Path(sys.argv[1]), sys.argv[2:]
    sys.exit(main(place, sys.argv[0]))
