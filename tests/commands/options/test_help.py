"""Help on one screen: what people change, with defaults that are true and examples that the parser takes."""

import importlib
import shlex

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.options.help import PLAIN, help_text
from atmanrl.commands.options.screens import SCREENS, Entry

PARTS = (
    "weight",
    "data.task",
    "group_size",
    "optimizer.lr",
    "max_steps",
    "policy.path",
    "tolerance",
    "default_root_dir",
)


def printed_config(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", *options, "--print_config"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", SCREENS)
def test_help_is_one_screen(command):
    lines = help_text(command, ["--help"]).splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 125
    assert all(entry.example in "\n".join(lines) for entry in SCREENS[command] if isinstance(entry, Entry))


def test_fits_help_names_what_people_change():
    text = help_text("fit", ["-h"])
    assert all(part in text for part in PARTS) and "[8] completions of each problem" in text
    assert help_text("fit", ["--config", "laptop"]) is None


def test_with_a_config_its_values_are_shown():
    text = help_text("fit", [f"--config={ROOT / 'configs/laptop.yaml'}", "--data.group_size=5", "--help"])
    assert "[WordProblems]" in text and "[5] completions" in text and "[0.15] learning rate" in text


def test_the_examples_of_a_screen_are_taken_together(capsys):
    examples = [entry.example for entry in SCREENS["fit"] if isinstance(entry, Entry) and "ckpt" not in entry.example]
    printed = printed_config(examples, capsys)
    assert all(text in printed for text in ("tolerance: 0.007", "weight: 0.5", "lr: 1.0e-06", "max_new_tokens: 512"))


def test_the_defaults_on_the_screen_are_those_of_the_parser(capsys):
    printed = printed_config(["--model.policy.path=x/y", "--data.task=GSM8K"], capsys)
    assert all(text in printed for text in ("group_size: 8", "max_new_tokens: 1024", "default_root_dir: runs/unnamed"))


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--data.help", "--data.group_size  [8]"),
        ("--data.help=SFTDataModule", "--data.batch_size  [64]"),
        ("--data.task.help", "GSM8K"),
        ("--data.task.help=WordProblems", "--data.task.train_size"),
        ("--model.loss.help=ClippedLoss", "--model.loss.epsilon  [0.2]"),
        ("--model.policy.lora.help", "--model.policy.lora.r  [16]"),
        ("--checkpoint.help", "--checkpoint.every_n_updates  [20]"),
    ],
)
def test_an_option_that_has_options_lists_them(option, says, capsys):
    assert main(["fit", option]) == 0
    assert says in capsys.readouterr().out


def test_help_on_what_is_not_there_is_refused(capsys):
    assert main(["fit", "--daat.help"]) == 2
    assert "did you mean --data.help?" in capsys.readouterr().err


@pytest.mark.parametrize("command", PLAIN)
def test_the_examples_of_probe_and_explain_are_options_of_theirs(command):
    parser = importlib.import_module(
        f"atmanrl.commands.{'explain' if command == 'explain' else 'probe.command'}"
    )._parser()
    examples = [word for entry in SCREENS[command] if isinstance(entry, Entry) for word in shlex.split(entry.example)]
    options = parser.parse_args(examples)
    defaults = {e.example[2:].partition("=")[0]: e.default for e in SCREENS[command] if isinstance(e, Entry)}
    for name, default in defaults.items():
        assert options.get(name) is not None
        if default not in ("needed", "recognised", "all", "no page", "the model's own"):
            assert str(parser.get_defaults(skip_validation=True).get(name)).lower() == default
