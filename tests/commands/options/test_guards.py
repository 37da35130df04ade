"""Values are checked by the constructors' own guards, which are read from source: no torch, no second set of rules."""

import importlib
import subprocess
import sys

import pytest
from conftest import ROOT

from atmanrl.commands.options.guards import refusal
from atmanrl.commands.options.machine import registered
from atmanrl.commands.options.plain import check_plain
from atmanrl.commands.options.signatures import signature
from atmanrl.commands.run import prepared
from atmanrl.errors import UserError

LAPTOP = f"--config={ROOT / 'configs/laptop.yaml'}"
PROBE = "--model.rewards.saliency.probe"
WRONG = {
    ("--data.group_size=-1",): "--data.group_size is -1; a group's advantage needs at least 2 rollouts.",
    ("--data.temperature=0",): "--data.temperature is 0.0; give a number above 0.",
    ("--data.max_prompt_tokens=0",): "--data.max_prompt_tokens is 0; give at least 1",
    (
        "--data.task=MultiHop",
        "--data.task.steps=[9,1]",
    ): "MultiHop: steps is [9, 1]; give a number from 2 to 20, or two",
    ("--data.task=MultiHop", "--data.task.steps=21"): "MultiHop: steps is 21",
    ("--data.task.train_size=0",): "WordProblems: train_size is 0; give at least 1.",
    ("--model.max_grad_norm=-1",): "--model.max_grad_norm is -1.0",
    ("--model.policy.lora.r=0",): "--model.policy.lora.r: give r >= 1",
    ("--model.rewards.saliency.share=2",): "SaliencyReward: share is 2.0",
    (
        "--model.rewards.short=TokenPriceReward",
        "--model.rewards.short.price=-1e-3",
    ): "TokenPriceReward: price is -0.001",
    ("--model.loss.epsilon=2",): "ClippedLoss: epsilon is 2.0",
    (f"{PROBE}.init_value=1",): f"init_value is 1.0 ({PROBE}.init_value); give a number below 0.",
    (f"{PROBE}.solver.tolerance=-1",): "the adaptive solver needs tolerance > 0",
    (f"{PROBE}.solver.steps=0",): f"steps is 0 ({PROBE}.solver.steps); give at least 1.",
    ("--model.lr_scheduler=WarmupSchedule", "--model.lr_scheduler.warmup_updates=-1"): (
        "--model.lr_scheduler: give warmup_updates >= 0"
    ),
    ("--model.lr_scheduler=atmanrl.grpo.WarmupSchedule", "--model.lr_scheduler.shape=cosin"): "did you mean cosine?",
    ("--model.lr_scheduler=WarmupShedule",): "did you mean --model.lr_scheduler=WarmupSchedule?",
    ("--trainer.accelerator=gpus",): "--trainer.accelerator: 'gpus' is an invalid accelerator name; did you mean gpu?",
    ("--trainer.strategy=fspd2",): "--trainer.strategy: 'fspd2' is an invalid strategy name; did you mean fsdp2?",
    ("--trainer.devices=foo",): "--trainer.devices is 'foo'; give how many (2)",
    ("--trainer.devices=0",): "--trainer.devices is 0; give at least 1, or auto.",
    (
        "--trainer.accelerator=cpu",
        "--trainer.devices=-1",
    ): "`devices` selected with `CPUAccelerator` should be an int > 0",
    ("--checkpoint.keep=1",): "--checkpoint.keep is 1; give at least 2, or -1 to keep all.",
    ("--rollout_table.rollouts=0",): "--rollout_table.rollouts is 0; give at least 1.",
}


@pytest.mark.parametrize(("options", "says"), list(WRONG.items()))
def test_a_value_out_of_its_range_is_refused_as_the_constructor_does(options, says):
    with pytest.raises(UserError) as refused:
        prepared("fit", [LAPTOP, *options], begins=False)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("atmanrl.tasks.multihop.MultiHop", {"steps": [9, 1]}),
        ("atmanrl.probe.solvers.adaptive.AdaptiveSolver", {"tolerance": -1.0}),
        ("atmanrl.probe.solvers.adaptive.AdaptiveSolver", {"steps": 0}),
        ("atmanrl.probe.solvers.paper.PaperSolver", {"betas": [0.5, 1.0]}),
        ("atmanrl.rollouts.sampler.SamplingOptions", {"temperature": -0.5}),
        ("atmanrl.grpo.loss_clipped.ClippedLoss", {"beta": -1.0}),
        ("atmanrl.grpo.loss_clipped.ClippedLoss", {"loss_type": "gpro"}),
        ("atmanrl.rewards.length.LengthReward", {"max_completion_len": 4, "soft_punish_cache": 5}),
        ("atmanrl.metrics.pass_at_k.PassAtK", {"ks": [0]}),
    ],
)
def test_the_words_are_those_of_the_constructor(path, values):
    module, _, name = path.rpartition(".")
    said = refusal(path, signature(path).defaults() | values)
    with pytest.raises(UserError) as refused:
        getattr(importlib.import_module(module), name)(**values)
    assert said == str(refused.value)


def test_what_the_source_does_not_tell_is_left_to_the_constructor():
    path = "atmanrl.rewards.saliency.SaliencyReward"
    assert refusal(path, {}) is None and refusal(path, {"share": 0.5}) is None


def test_what_may_never_be_reached_refuses_nothing(monkeypatch):
    """`explain` returns before some of its guards where a model is loaded by its name, and takes its answer from --gold."""
    monkeypatch.chdir(ROOT)
    for options in (["--dtype=float32"], ["--gold=7", "--cot= 3 + 4 = 7."]):
        check_plain("explain", ["--model=experiments/laptop/policy", "--prompt=x", *options])


def test_a_wrong_value_is_refused_before_torch_is_imported(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from atmanrl.__main__ import main; sys.exit(main())"
    options = [LAPTOP, "--data.group_size=1", f"--trainer.default_root_dir={tmp_path}"]
    ran = subprocess.run([sys.executable, "-c", code, "fit", *options], capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("atmanrl: error: --data.group_size is 1;"), ran.stderr


def test_every_name_that_lightning_has_registered_is_known():
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    import atmanrl.distributed  # noqa: F401  it registers its own

    assert registered("strategy") == {"auto", *StrategyRegistry.available_strategies()}
    assert registered("accelerator") == {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}


@pytest.mark.parametrize("devices", ["2", "auto", "-1", "0,1", "[0,1]", "1,"])
def test_devices_that_lightning_takes_are_left_to_it(devices):
    prepared("fit", [LAPTOP, f"--trainer.devices={devices}", "--trainer.accelerator=gpu"], begins=False)


def test_schedules_of_torch_are_left_to_the_parser():
    from torch.optim import lr_scheduler

    for name in lr_scheduler.__all__:
        prepared("fit", [LAPTOP, f"--model.lr_scheduler={name}"], begins=False)
