"""Every shipped config is complete, can be built, and the pairs that are compared differ in one reward."""

import json

import pytest
import yaml
from conftest import ROOT, skip_without_packages_of

from atmanrl.__main__ import main
from atmanrl.models.policy import Policy

SWEEPS = sorted((ROOT / "configs/sweeps").glob("*.yaml"))
CONFIGS = [path for path in sorted((ROOT / "configs").rglob("*.yaml")) if path not in SWEEPS]
PAIRS = [("laptop", "laptop_baseline"), ("atmanrl", "baseline")]


def read(name):
    return yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())


@pytest.fixture
def built(monkeypatch):
    """Instantiates what a `fit` command names, with its policy loaded, and trains nothing."""
    from atmanrl.commands.run_cli import RunCLI

    def build(arguments):
        made = []
        monkeypatch.setattr(RunCLI, "_run_subcommand", lambda self, _: made.append(self))
        assert main(arguments) == 0
        made[0].model.configure_model()
        return made[0]

    return build


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_config_is_built_on_a_tiny_policy(path, built, tiny_folder, tmp_path):
    skip_without_packages_of(path)
    folder = f"--trainer.default_root_dir={tmp_path / 'run'}"
    cli = built(["fit", "--config", str(path), f"--model.policy.path={tiny_folder}", folder])
    written = yaml.safe_load(cli.parser.dump(cli.config, skip_validation=False))  # as `--print_config` would
    assert {"trainer", "model", "data", "checkpoint", "metrics"} <= written["fit"].keys()
    policy = cli.model.policy
    assert isinstance(policy, Policy) and policy.model.config.hidden_size == 32
    assert cli.datamodule.task is not None
    trainable = [p for p in policy.parameters() if p.requires_grad]
    assert trainable and (policy.lora is None) == (len(trainable) == len(list(policy.parameters())))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_every_value_of_a_sweep_is_built(path, built, tiny_folder, tmp_path):
    from atmanrl.sweep.space import load
    from atmanrl.sweep.trial import command_line

    sweep = load(path)
    more = [f"--model.policy.path={tiny_folder}", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    seen = []
    axes = [space.values for space in sweep.parameters.values()]
    for number in range(max(map(len, axes))):
        point = {name: axis[number % len(axis)] for name, axis in zip(sweep.parameters, axes, strict=True)}
        command = command_line(sweep, point, more)
        cli = built(command[command.index("fit") :])
        saliency, task = cli.model.rewards["saliency"], cli.datamodule.task
        values = {
            "model.rewards.saliency.weight": saliency.weight,
            "model.rewards.saliency.probe.init_value": saliency.probe.init_value,
            "model.rewards.saliency.probe.solver.steps": saliency.probe.solver.steps,
            "data.task.steps": getattr(task, "longest", None),
        }
        assert {name: values[name] for name in point} == point
        seen.append(tuple(values.values()))
    assert len(set(seen)) == len(seen) > 3


@pytest.mark.parametrize(("ours", "baseline"), PAIRS)
def test_the_baseline_differs_in_the_saliency_reward_alone(ours, baseline):
    ours, baseline = read(ours), read(baseline)
    del ours["model"]["init_args"]["rewards"]["saliency"]
    for config in (ours, baseline):
        del config["trainer"]["default_root_dir"]
    assert ours == baseline


def test_the_papers_settings():
    """Each of them as the design has it, in the config's own words."""
    config = read("atmanrl")
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    probe = model["rewards"]["saliency"]["init_args"]["probe"]
    assert model["policy"]["path"] == "meta-llama/Llama-3.2-3B-Instruct"
    assert (config["trainer"]["precision"], model["policy"]["dtype"]) == ("bf16-mixed", "float32")
    assert (model["optimizer"]["init_args"]["lr"], config["trainer"]["max_epochs"]) == (8e-7, 5)
    assert (data["group_size"], data["queries_per_device"], data["max_new_tokens"]) == (8, 8, 1024)
    assert (model["num_iterations"], model["minibatch_queries"]) == (2, 2)
    assert model["loss"]["class_path"].endswith("ClippedLoss") and model["loss"]["init_args"]["epsilon"] == 0.2
    assert (probe["init_value"], probe["scale"], probe["solver"]["class_path"]) == (-0.4, 10.0, "AdaptiveSolver")
    solver = {"steps": 200, "lr": 1e-3, "betas": [0.6, 0.9999], "weight_decay": 0.05}
    assert {name: probe["solver"]["init_args"][name] for name in solver} == solver
    assert probe["solver"]["init_args"]["agreement"] == 0.99  # with the paper's own solver, which is seven times slower
    assert {name: reward["init_args"]["weight"] for name, reward in model["rewards"].items()} == {
        "outcome": 1.0, "saliency": 1.0,
    }  # fmt: skip
    assert (data["test_problems"], data["eval_samples"]) == (500, 4)
    mmlu = read("mmlu")
    assert mmlu["model"] == config["model"]
    assert {k: v for k, v in mmlu["data"]["init_args"].items() if k != "task"} == {
        k: v for k, v in data.items() if k != "task"
    }
    assert json.dumps(config)


def test_switching_the_task_keeps_the_instruction(capsys):
    laptop = str(ROOT / "configs/laptop.yaml")
    with pytest.raises(SystemExit):
        main(["fit", "--config", laptop, "--data.task=GSM8K", "--data.task.path=x", "--print_config"])
    task = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["task"]
    assert task["class_path"].endswith("GSM8K")
    assert (task["init_args"]["path"], task["init_args"]["instruction"]) == ("x", "")
