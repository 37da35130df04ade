"""The notice of contended cores: said once, with what was seen, and never without need."""

import hashlib
import os
import threading
import time
from itertools import accumulate

import pytest

from atmanrl import contention, pulse
from atmanrl.contention import Reading, Watch

STARVED = Reading(clock=16.0, running=3.2, waiting=28.8)


def beats(monkeypatch, *passed: Reading, threads=2, load=8.6, cores=2) -> Watch:
    """Let a watch hear one beat at the start, and one after each of some stretches of time."""
    readings = list(accumulate(passed, lambda a, b: Reading(a.clock + b.clock, a.running + b.running, a.waiting + b.waiting),
                               initial=Reading(100.0, 5.0, 1.0)))  # fmt: skip
    at = iter(readings)
    watch = Watch(lambda: next(at), lambda: threads, lambda: load, lambda: cores)
    pulse.listen(watch.beat)
    for reading in readings:
        monkeypatch.setattr(contention.time, "monotonic", lambda now=reading.clock: now)
        pulse.beat("probing", 1, 5)
    pulse.stop_listening(watch.beat)
    return watch


def test_starved_threads_are_noticed_once_with_the_figures(monkeypatch, capsys):
    beats(monkeypatch, Reading(16.0, 31.0, 0.5), STARVED, STARVED, STARVED)
    said = capsys.readouterr().err
    assert said.count("other work has the cores") == 1
    assert "in 16 s of probing this process ran for 3 s, and its 2 threads waited 29 s for a core (load 8.6, 2" in said
    assert "Set OMP_NUM_THREADS=1, or call torch.set_num_threads(1)." in said


@pytest.mark.parametrize(
    ("passed", "threads"),
    [
        (Reading(16.0, 31.5, 0.4), 2),  # an idle machine
        (Reading(16.0, 26.0, 6.0), 2),  # a little of other work
        (Reading(16.0, 0.4, 0.1), 2),  # waiting for a GPU, for data or for a network
        (Reading(16.0, 8.0, 8.0), 2),  # one thread that runs at a time, as behind a GPU, waits for no other
        (Reading(10.0, 2.0, 18.0), 2),  # too short to tell
        (STARVED, 1),  # nothing to set
    ],
)
def test_nothing_is_said_without_need(monkeypatch, capsys, passed, threads):
    beats(monkeypatch, passed, threads=threads)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("threads", "load", "cores", "wanted"),
    [
        (2, 8.6, 2, 1),
        (32, 52.0, 32, 12),  # others have 20 cores: 12 are left
        (32, 200.0, 32, 1),
        (64, 70.0, 4, 4),  # a container of four cores on a large machine
    ],
)
def test_as_many_threads_are_proposed_as_there_is_room_for(threads, load, cores, wanted):
    watch = Watch(lambda: None, lambda: threads, lambda: load, lambda: cores)
    passed = Reading(16.0, 16.0 * threads / 2, 16.0 * threads / 2)
    assert f"Set OMP_NUM_THREADS={wanted}," in watch.notice("probing", passed)


def test_a_kernel_that_does_not_tell_is_borne(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contention, "TASKS", tmp_path)
    assert Reading.now() is None
    watch = Watch(threads=lambda: 2)
    for now in (100.0, 120.0):
        monkeypatch.setattr(contention.time, "monotonic", lambda now=now: now)
        watch.beat("probing")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or Reading.now() is None, reason="the kernel does not tell")
def test_the_kernel_tells_two_threads_on_one_core_from_sleep():
    def hash_on_one_core() -> None:
        os.sched_setaffinity(0, core)  # of this thread alone
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            hashlib.sha256(data)  # without the interpreter's lock

    data, core = bytes(1 << 20), {min(os.sched_getaffinity(0))}
    begin = Reading.now()
    time.sleep(0.6)
    asleep = Reading.now()
    threads = [threading.Thread(target=hash_on_one_core) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    busy = Reading.now()
    for thread in threads:
        thread.join()
    assert not (asleep - begin).contended and (busy - asleep).contended
