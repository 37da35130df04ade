"""Whoever gives an option's old name is told the new one."""

import pytest
import yaml
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.moved import LOSS, moved

LAPTOP = ROOT / "configs/laptop.yaml"


@pytest.mark.parametrize("place", ["typed", "typed in full", "file", "a run's own file"])
def test_an_old_name_is_answered_by_the_new_one(place, tmp_path, capsys):
    arguments = ["fit", f"--config={LAPTOP}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    if place.startswith("typed"):
        arguments.append("--model.init_args.beta=0.1" if "full" in place else "--model.beta=0.1")
    else:
        config = yaml.safe_load(LAPTOP.read_text())
        del config["model"]["init_args"]["loss"]
        config["model"]["init_args"]["beta"] = 0.1
        (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
        arguments[1:2] = ["--config", str(tmp_path / "old.yaml")]
    assert main(arguments) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("atmanrl: error: model.beta is an option of the loss now: give model.loss.init_args.beta")


@pytest.mark.parametrize("name", LOSS)
def test_every_option_that_moved(name):
    message = f"Option '{name}' is not accepted"
    assert f"model.loss.init_args.{name} " in moved(message, ["fit", f"--model.{name}=1"])
    assert moved(message, ["fit", f"--data.task.{name}=1", "--config=nowhere.yaml"]) is None  # somebody else's
    assert moved("Option 'seed' is not accepted", ["fit", "--model.seed=1"]) is None


def test_a_class_path_of_an_earlier_version_is_answered_by_the_new_one(tmp_path, capsys):
    (tmp_path / "old.yaml").write_text("model: {policy: {class_path: atmanrl.policy.Policy, init_args: {path: p}}}")
    with pytest.raises(SystemExit):
        main(["fit", f"--config={LAPTOP}", f"--config={tmp_path / 'old.yaml'}", "--print_config"])
    assert "atmanrl.policy is now called atmanrl.models.policy" in capsys.readouterr().err
