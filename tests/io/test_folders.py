"""Whose a folder is: marks, strangers' files, and the lock."""

import subprocess
import sys

import pytest

from atmanrl.io.files import FileError
from atmanrl.io.folders import check_fillable, check_replaceable, is_marked, locked, mark


def test_a_folder_with_other_files_can_be_filled_and_marked(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    check_fillable(tmp_path, "report", ["index.html"])
    mark(tmp_path, "report")
    (tmp_path / "index.html").write_text("a report")
    check_fillable(tmp_path, "report", ["index.html"])
    assert is_marked(tmp_path, "report") and not is_marked(tmp_path, "probe")


def test_a_command_does_not_fill_in_over_another(tmp_path):
    mark(tmp_path, "report")
    (tmp_path / "index.html").write_text("a report")
    with pytest.raises(FileError, match=r"holds index.html, which `atmanrl probe` has not made"):
        check_fillable(tmp_path, "probe", ["index.html", "summary.json"])


@pytest.mark.parametrize(
    "check", [lambda path: check_fillable(path, "probe", ["x"]), lambda p: check_replaceable(p, "x")]
)
def test_no_folder_at_all(tmp_path, check):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(FileError, match="file is a file"):
        check(tmp_path / "file")
    with pytest.raises(FileError, match="link is a link to gone"):
        check(tmp_path / "link")
    check(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_a_folder_of_ours_is_replaced(tmp_path):
    check_replaceable(tmp_path, "sweep")  # nothing is lost with an empty one
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="was not made by `atmanrl sweep`"):
        check_replaceable(tmp_path, "sweep")
    mark(tmp_path, "sweep")
    check_replaceable(tmp_path, "sweep")


HOLD = (
    "import sys, time; from pathlib import Path; from atmanrl.io.folders import locked\n"
    "with locked(Path(sys.argv[1]), 'fit'): print('held', flush=True); time.sleep(60)"
)


def test_a_lock_is_one_process_s_and_goes_with_it(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(FileError, match=r"another `atmanrl fit` is at work in .*run"), locked(tmp_path / "run", "fit"):
        pass
    with locked(tmp_path / "run", "probe"):  # a lock of another kind
        pass
    holder.kill()
    with locked(tmp_path / "run", "fit", patience=10.0):
        holder.wait()
    with locked(tmp_path / "run", "fit"):  # and can be taken again
        pass
