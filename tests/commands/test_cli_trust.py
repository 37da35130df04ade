"""Code of a stranger's runs: what a config file may not make a command run."""

import json
import shutil

import pytest
import yaml
from conftest import ROOT
from jsonargparse import Namespace

from atmanrl.__main__ import main
from atmanrl.commands.trust import check_code
from atmanrl.errors import UserError
from atmanrl.worker import LoadError, load

LAPTOP = str(ROOT / "configs/laptop.yaml")


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A model's folder with code of its own, which leaves a file behind when it runs."""
    folder, mark = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoConfig": "stranger.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "stranger.py").write_text(
        "from transformers import LlamaConfig\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "class Config(LlamaConfig):\n    model_type = 'stranger'\n"
    )
    return folder


@pytest.fixture
def run(model, tmp_path):
    """A run's folder whose config asks to trust that code."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    import torch

    torch.save({"state_dict": {"policy.model.x": torch.zeros(1)}}, folder / "checkpoints/last.ckpt")
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    config["model"]["init_args"]["policy"] = {"path": str(model), "trust_remote_code": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_an_export_runs_no_code_unless_it_is_told_to(run, tmp_path, capsys):
    command = ["export", "--ckpt", str(run / "checkpoints/last.ckpt"), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "asks to run code that comes with the model" in said and "--trust_remote_code" in said
    assert not (tmp_path / "ran").exists()
    assert main([*command, "--trust_remote_code"]) == 1  # the weights are no model's, but the code was let run
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_config_file_allows_no_code(run, tmp_path, capsys, command):
    options = [command, f"--config={run / 'config.yaml'}", f"--trainer.default_root_dir={run}", "--ckpt_path=last"]
    for more in ([], ["--model.policy.trust_remote_code=false", f"--config={run / 'config.yaml'}"]):
        assert main([*options, *more]) == 1
        assert "type --model.policy.trust_remote_code=true in this command" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_plans_and_probes_trust_no_file_either(run, model, tmp_path, capsys):
    plan = ["plan", f"--config={run / 'config.yaml'}", "--devices=1", "--memory=80GB", "--flops=989T"]
    assert main(plan) == 1
    assert "type --model.policy.trust_remote_code=true" in capsys.readouterr().err
    config = tmp_path / "probe.yaml"
    config.write_text(f"model: {model}\ntraces: {config}\nout: {tmp_path / 'o'}\npolicy: {{trust_remote_code: true}}\n")
    assert main(["probe", f"--config={config}"]) == 1
    assert "type --policy.trust_remote_code=true" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


TRUSTING = Namespace(fit=Namespace(model={"init_args": {"policy": {"trust_remote_code": True}}}))


@pytest.mark.parametrize(
    ("typed", "allowed"),
    [
        (["--model.policy.trust_remote_code=true"], True),
        (["--model.init_args.policy.trust_remote_code", "True"], True),
        (["--model.policy.trust_remote_code"], True),
        (["--model.policy", '{"path": "x", "trust_remote_code": true}'], True),
        (["--model.policy.trust_remote_code=true", "--model.policy.trust_remote_code=false"], False),
        (["--model.policy.path=trust_remote_code"], False),
        (["--model.reference.trust_remote_code=true"], False),
        (["--config=trust_remote_code.yaml"], False),
        ([], False),
    ],
)
def test_what_counts_as_typed(typed, allowed):
    if allowed:
        check_code(TRUSTING, ["fit", *typed])
    else:
        with pytest.raises(UserError, match=r"^model\.policy\.trust_remote_code is true in a config file"):
            check_code(TRUSTING, ["fit", *typed])


def test_pickled_checkpoints_are_an_option_that_allows_code():
    with pytest.raises(UserError, match="weights_only is false .* may run code while it is read"):
        check_code(Namespace(test=Namespace(weights_only=False)), ["test"])
    check_code(Namespace(test=Namespace(weights_only=False)), ["test", "--weights_only=false"])
    check_code(Namespace(test=Namespace(weights_only=None)), ["test"])


CALLED = []


def calls(*args, **kwargs):
    """A function that would be called with the arguments of a config file."""
    CALLED.append((args, kwargs))


class Whatever:
    """A class of no base that the command line knows."""

    def __init__(self, x: int = 0) -> None:
        CALLED.append(x)

    def __call__(self, *args):
        CALLED.append(args)


PLACES = [
    "model.init_args.optimizer", "model.init_args.lr_scheduler", "model.init_args.rewards.saliency",
    "model.init_args.rewards.saliency.init_args.probe.init_args.solver", "data.init_args.task", "trainer.callbacks",
    "trainer.logger", "trainer.strategy", "trainer.profiler", "model", "data",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "spec",
    [
        {"class_path": "builtins.eval", "init_args": {"source": "1"}},
        {"class_path": "test_cli_trust.calls", "dict_kwargs": {"x": 1}},
        {"class_path": "test_cli_trust.Whatever", "init_args": {"x": 1}},
    ],
    ids=["eval", "function", "class"],
)
def test_nothing_is_called_before_its_base_is_known(place, spec, tmp_path, capsys):
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    at = config
    *parents, last = place.split(".")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = [spec] if last in ("callbacks",) else spec
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    CALLED.clear()
    try:
        status = main(["fit", f"--config={tmp_path / 'c.yaml'}", f"--trainer.default_root_dir={tmp_path / 'r'}"])
    except SystemExit as stop:
        status = stop.code
    assert status in (1, 2) and CALLED == []
    assert capsys.readouterr().err.startswith("atmanrl: error: ")


def test_arguments_of_a_reward_function_stay_data(tmp_path):
    from atmanrl.commands.run_cli import RunCLI

    class Read(RunCLI):
        def _run_subcommand(self, subcommand):
            pass

    spec = {"class_path": "test_cli_trust.Whatever", "init_args": {"x": 1}}
    reward = {"class_path": "FunctionReward", "init_args": {"function": "a.b", "arguments": {"inner": spec}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"rewards": {"mine": reward}}}}))
    CALLED.clear()
    Read(
        ["fit", f"--config={LAPTOP}", f"--config={tmp_path / 'c.yaml'}", f"--trainer.default_root_dir={tmp_path / 'r'}"]
    )
    assert CALLED == []


@pytest.mark.parametrize("path", ["subprocess.check_output", "builtins.eval", "test_cli_trust.shutil", "shutil.rmtree"])
def test_no_function_of_pythons_own_is_a_reward(path):
    with pytest.raises(LoadError):
        load(path, {"args": ["true"]} if "sub" in path else None)
