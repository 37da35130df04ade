"""Writing files and folders whole: what is refused, what is left alone, what an error names."""

import errno
import os
import subprocess
import sys

import pytest
from disk import full_disk

from atmanrl.io.files import (
    FileError,
    atomic_file,
    atomic_folder,
    atomic_write,
    remove_leftovers,
    shown_path,
    temporary_path,
)


def write(path, text="new"):
    with atomic_write(path) as file:
        file.write(text)


def test_a_file_takes_its_place_and_its_folders_are_made(tmp_path):
    write(tmp_path / "a/b/c.txt")
    assert (tmp_path / "a/b/c.txt").read_text() == "new"
    assert os.listdir(tmp_path / "a/b") == ["c.txt"]


def test_a_folder_is_no_file_and_stays(tmp_path):
    (tmp_path / "jd").mkdir()
    (tmp_path / "jd/x").write_text("mine")
    with pytest.raises(FileError, match="jd is a folder; give the name of a file"):
        write(tmp_path / "jd")
    (tmp_path / "link").symlink_to("jd")
    with pytest.raises(FileError, match="link is a folder"):
        write(tmp_path / "link")
    assert (tmp_path / "jd/x").read_text() == "mine"


def test_a_file_is_no_folder_and_stays(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(FileError, match="out is a file; give the name of a folder"), atomic_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, writer):
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(FileError, match="link is a link to gone, which is not there"), writer(tmp_path / "link"):
        pass
    assert os.listdir(tmp_path) == ["link"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/old").write_text("old")
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "file").symlink_to("real.txt")
    write(tmp_path / "file")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "file").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    assert (tmp_path / "folder").is_symlink() and os.listdir(tmp_path / "real") == ["new"]


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(tmp_path / "pipe")
    assert os.read(reader, 10) == b"new" and os.listdir(tmp_path) == ["pipe"]
    os.close(reader)


@pytest.mark.parametrize("name", ["out.part", ".out.part", "out.tmp", "out.stale"])
def test_what_a_user_calls_his_files_does_not_matter(tmp_path, name):
    (tmp_path / name).write_text("mine")
    write(tmp_path / "out")
    with atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "x").write_text("x")
    assert (tmp_path / name).read_text() == "mine"


def test_nothing_changes_when_the_block_raises(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_text("old")
    with pytest.raises(KeyError), atomic_write(tmp_path / "file") as file:
        file.write("half")
        raise KeyError
    with pytest.raises(KeyError), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "half").write_text("half")
        raise KeyError
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and os.listdir(tmp_path / "folder") == ["old"]
    assert (tmp_path / "file").read_text() == "old"


def test_an_older_folder_is_put_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/old").write_text("old")
    replace, calls = os.replace, []

    def fail_once(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(PermissionError) as error, atomic_folder(tmp_path / "folder"):
        pass
    assert error.value.filename == str(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(tmp_path / "folder") == ["old"]


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "file").write_text("old")
    with full_disk(), pytest.raises(OSError) as error:
        write(tmp_path / "file", "x" * 5000)
    assert error.value.errno == errno.EFBIG and error.value.filename == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_leftovers_of_a_killed_process_are_ours_alone(tmp_path):
    mine = [".atmanrl-tmp-notes", ".atmanrl-tmp-0123456789abcdeX-x", "update_00001.ckpt.part"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    temporary_path(tmp_path / "a").write_text("torn")
    temporary_path(tmp_path / "b").mkdir()
    kept = temporary_path(tmp_path / "c")
    kept.write_text("another's")
    remove_leftovers(tmp_path, "a", "b")
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, kept.name])
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(mine)


def test_a_long_name_is_no_obstacle(tmp_path):
    name = "\U0001f600" * 63
    write(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_two_processes_that_write_one_file_do_not_meet(tmp_path):
    code = (
        "import sys; from pathlib import Path; from atmanrl.io.files import atomic_write\n"
        "for _ in range(200):\n"
        "    with atomic_write(Path(sys.argv[1])) as file: file.write(sys.argv[2] * 5000)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "file", letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert (tmp_path / "file").read_text() in ("a" * 5000, "b" * 5000) and os.listdir(tmp_path) == ["file"]


def test_pages_show_no_folders_of_the_machine():
    shown = {
        "/home/anna/models/smol": "smol", "/work/runs/laptop/policy": "laptop/policy", "/policy": "policy",
        "experiments/laptop/policy": "experiments/laptop/policy", "HuggingFaceTB/SmolLM2": "HuggingFaceTB/SmolLM2",
    }  # fmt: skip
    assert {path: shown_path(path) for path in shown} == shown
