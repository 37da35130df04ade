"""How commands end: pipes that close, disks that refuse, encodings that lack characters, terminals that are narrow."""

import errno
import json
import os
import subprocess
import sys
import unicodedata

import pytest
from hostile import TEXTS

from atmanrl.__main__ import main
from atmanrl.commands.errors import disk_sentence, mendable, run
from atmanrl.errors import Interrupted, UserError

FIGURES = {"tokens_per_cot": 40.5, "numbers_pct": 12.3, "stop_words_pct": 30.1, "symbols_pct": 4.0, "pass_at_1": 0.9}


@pytest.fixture
def runs(tmp_path):
    """Two tested runs, as arguments of `table`."""
    for name in ("a", "b"):
        (tmp_path / name / "eval").mkdir(parents=True)
        (tmp_path / name / "eval/test.json").write_text(json.dumps(FIGURES))
    return [str(tmp_path / "a"), str(tmp_path / "b"), "--baseline=b"]


def command(arguments, stdout=subprocess.PIPE, cwd=None, **environment):
    code = "import sys; from atmanrl.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace",
        cwd=cwd, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], ["table", "--help"]])
def test_a_reader_that_goes_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = command(arguments, stdout=writer)
    os.close(writer)
    assert done.stderr == "" and done.returncode in (0, 141)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_table_in_any_encoding_and_any_width_has_all_figures(runs, encoding):
    for columns in ("20", "200"):
        done = command(["table", *runs], PYTHONIOENCODING=encoding, COLUMNS=columns)
        assert done.returncode == 0 and done.stderr == ""
        assert all(figure in done.stdout for figure in ("40.5", "12.3", "30.1", "4.0", "90.0"))


def test_a_folder_that_is_given_as_a_file_stays(runs, tmp_path, capsys):
    (tmp_path / "jd/x").mkdir(parents=True)
    assert main(["table", *runs, f"--json={tmp_path / 'jd'}"]) == 1
    assert capsys.readouterr().err == f"atmanrl: error: {tmp_path / 'jd'} is a folder; give the name of a file.\n"
    assert (tmp_path / "jd/x").is_dir()
    below = tmp_path / "a/eval/test.json/x"
    assert main(["table", *runs, f"--json={below}"]) == 1
    assert f"{below.parent} is a file" in capsys.readouterr().err


def test_a_working_directory_that_is_gone(tmp_path):
    code = (
        f"import os; os.mkdir({str(tmp_path / 'gone')!r}); os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd())\n"
        "from atmanrl.__main__ import main; raise SystemExit(main(['fit', '--print_config']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "is not there any more" in done.stderr and done.stderr.count("\n") == 1


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EIO])
def test_an_error_of_the_disk_is_a_sentence_that_names_the_file(capsys, number):
    assert run(raising(OSError(number, os.strerror(number), "/a/b"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("atmanrl: error: /a/b: ") and said.count("\n") == 1


def test_errors_and_their_statuses(capsys):
    assert run(raising(KeyboardInterrupt())) == 130 and run(raising(Interrupted("saved", 75))) == 75
    assert run(raising(UserError("no."))) == 1 and run(raising(BrokenPipeError())) == 141
    assert capsys.readouterr().err == "atmanrl: interrupted.\natmanrl: saved\natmanrl: error: no.\n"
    with pytest.raises(KeyError):
        run(raising(KeyError("a fault of ours")))
    with pytest.raises(SystemExit):
        run(raising(SystemExit(2)))


def test_what_a_library_makes_of_an_interruption_is_one():
    def work():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert run(work) == 130


def test_the_reason_of_a_refused_class_is_told_whole():
    said = (
        "Does not validate against any of the Union subtypes\nErrors:\n  - Problem with given class_path 'a.b.TheLogger':\n"
        "      Neither x nor y is there.\n      HINT\n  - Expected a <class 'bool'>\n"
    )
    assert mendable(ValueError(said)) == "TheLogger: Neither x nor y is there."


def test_a_librarys_own_error_is_told_in_a_line():
    assert disk_sentence(OSError("no connection\n  to the hub")) == "no connection to the hub"


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_that_a_command_says_at_its_end_is_obeyed_by_a_terminal(capsys, text):
    for error in (UserError(text), Interrupted(text, 75), OSError(errno.EIO, text, text)):
        run(raising(error))
    main([text])
    said = capsys.readouterr().err
    assert said.startswith("atmanrl: ") and not [c for c in said if c != "\n" and c != "\t" and not_shown(c)]


def not_shown(character):
    """By Unicode's own categories: controls, surrogates, and the turns of the writing direction."""
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in (
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    )  # fmt: skip


def test_an_argument_that_is_not_utf8_is_refused_whole(capsys):
    assert main(["fit", "--trainer.default_root_dir=caf\udce9"]) == 1
    assert capsys.readouterr().err == (
        "atmanrl: error: the argument --trainer.default_root_dir=caf\\udce9 is not UTF-8, in which a run's files are "
        "written; rename what it names.\n"
    )
