"""What travels with the package: listed, copied, found by name from any folder, and in the wheel."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT

from atmanrl import shipped
from atmanrl.__main__ import main
from atmanrl.models.devices import choose_dtype
from atmanrl.models.policy import Policy

NAMES = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """The user's folder, in which there is nothing."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def printed_config(capsys, *arguments: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_all_are_listed_with_what_they_are(empty, capsys):
    assert main(["configs"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.split("\n\n")[0].splitlines())
    assert rows.keys() == NAMES and all(text[0].isupper() for text in rows.values())
    assert rows["laptop"] == "AtManRL on a laptop: the shipped policy, word problems, outcome and saliency."


def test_a_copy_is_the_shipped_one_and_names_itself(empty, capsys):
    assert main(["configs", "copy", "laptop", "sweeps/reward_weight"]) == 0
    said = capsys.readouterr().out
    assert "laptop.yaml written." in said and "it names experiments/laptop/policy, found at " in said
    assert "it names configs/laptop.yaml, found at " in said
    copy, original = (empty / "laptop.yaml").read_text(), (ROOT / "configs/laptop.yaml").read_text()
    assert yaml.safe_load(copy) == yaml.safe_load(original)
    assert "--config laptop.yaml" in copy and "configs/laptop.yaml" not in copy
    assert (empty / "reward_weight.yaml").is_file()


def test_a_copy_overwrites_nothing(empty, capsys):
    (empty / "laptop.yaml").write_text("mine")
    assert main(["configs", "copy", "baseline", "laptop"]) == 1
    assert "laptop.yaml exists already" in capsys.readouterr().err
    assert (empty / "laptop.yaml").read_text() == "mine" and not (empty / "baseline.yaml").exists()
    assert main(["configs", "copy", "laptop", "--to", "other"]) == 0
    assert (empty / "other/laptop.yaml").is_file()


def test_an_unknown_name_is_told_the_known_ones(empty, capsys):
    assert main(["configs", "copy", "lapdog"]) == 1
    assert (
        "no configuration 'lapdog'; choose one of " in (said := capsys.readouterr().err) and "laptop_baseline" in said
    )


@pytest.mark.parametrize("name", ["laptop", "laptop.yaml", "configs/laptop.yaml"])
def test_a_shipped_config_is_found_by_name(empty, capsys, name):
    assert printed_config(capsys, f"--config={name}")["trainer"]["default_root_dir"] == "runs/laptop"


@pytest.mark.parametrize("file", ["laptop", "laptop.yaml"])
def test_a_file_of_that_name_here_comes_first(empty, capsys, file):
    (empty / file).write_text("trainer: {default_root_dir: runs/mine}\n")
    assert printed_config(capsys, "-c", "laptop")["trainer"]["default_root_dir"] == "runs/mine"


def test_a_folder_of_that_name_is_no_file(empty):
    (empty / "laptop").mkdir()
    assert shipped.config_file("laptop") == str(ROOT / "configs/laptop.yaml")


def test_plan_and_sweep_take_names_too(empty, capsys):
    assert main(["plan", "--config", "laptop", "--devices=1", "--memory=8GB", "--flops=200G"]) == 0
    assert main(["sweep", "sweeps/reward_weight", "--jobs=0"]) == 1
    assert "--jobs and --trials must be at least 1." in capsys.readouterr().err


def test_the_laptop_policy_is_found_from_any_folder_unless_there_is_one_here(empty):
    policy = "experiments/laptop/policy"
    assert shipped.located(policy) == str(ROOT / policy)
    assert shipped.located("experiments/laptop/results") == "experiments/laptop/results"
    assert shipped.located("configs/../pyproject.toml") == "configs/../pyproject.toml"
    (empty / policy).mkdir(parents=True)
    assert shipped.located(policy) == policy


def test_the_laptop_policy_is_read_from_any_folder_under_its_name(empty):
    policy = Policy("experiments/laptop/policy").prepare()
    assert (policy.path, policy.config.vocab_size) == ("experiments/laptop/policy", policy.vocabulary_size)
    assert choose_dtype("auto", torch.device("cpu"), Policy("experiments/laptop/policy")) == "float32"


def test_the_wheel_holds_every_shipped_file(tmp_path, empty):
    """As setuptools builds it; the package finds them beside itself, in a folder that holds nothing else."""
    pytest.importorskip("setuptools")
    build = ["egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "site")]
    subprocess.run([sys.executable, "setup.py", "-q", *build], cwd=ROOT, check=True, capture_output=True)
    folder = tmp_path / "site/atmanrl/shipped_files"
    expected = [path for name in shipped.PATHS for path in (ROOT / name).rglob("*") if path.is_file()]
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == {
        path.relative_to(ROOT) for path in expected
    }
    assert (folder / "experiments/laptop/policy/model.safetensors").stat().st_size > 1_000_000
    listing = subprocess.run(
        [sys.executable, "-m", "atmanrl", "configs", "copy", "laptop"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert f"it names experiments/laptop/policy, found at {folder / 'experiments/laptop/policy'}." in listing
