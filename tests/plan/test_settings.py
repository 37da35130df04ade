"""The plan reads the objects that `fit` would train with: no number of theirs stands in `plan/` a second time."""

import json
import socket
from functools import partial

import pytest
import torch
from conftest import ROOT, skip_without_packages_of

from atmanrl.commands.planned_run import PlannedRun
from atmanrl.distributed import FSDP2Strategy
from atmanrl.errors import UserError
from atmanrl.plan.settings import settings_of
from atmanrl.probe.attributions import GradientAtStart
from atmanrl.probe.solvers import AdaptiveSolver, PaperSolver
from atmanrl.rewards import GoldLogprobReward
from atmanrl.rewards.gate import Gate
from atmanrl.sft import SFTModule

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LAPTOP = f"--config={ROOT / 'configs/laptop.yaml'}"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("a plan connects to nothing")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def read(*arguments):
    run = PlannedRun(arguments)
    return run, settings_of(run.model, run.datamodule, run.trainer, run.strategy)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_numbers_of_a_shipped_config_are_attributes_of_its_objects(path):
    skip_without_packages_of(path)
    run, settings = read(f"--config={path}")
    module, data, trainer, policy = run.model, run.datamodule, run.trainer, run.model.policy
    assert policy.model is None and policy.tokenizer is None  # nothing is loaded
    assert (settings.path, settings.lora) == (policy.path, policy.lora)
    assert settings.weight_bytes == {"float32": 4, "bfloat16": 2}[policy.dtype_name]
    assert settings.compute_bytes == (2 if "mixed" in str(trainer.precision) else settings.weight_bytes)
    assert settings.checkpointing == policy.activation_checkpointing
    assert settings.sharded == isinstance(run.strategy, FSDP2Strategy)
    assert settings.max_steps == trainer.max_steps and settings.val_problems == data.val_problems
    assert settings.max_epochs == (-1 if trainer.max_epochs is None else trainer.max_epochs)
    assert settings.problems == data.task.size("train") - data.val_problems
    resampled = "data.resample_zero_spread, which samples some groups more than once"
    assert settings.notes == ([resampled] if getattr(data, "resample_zero_spread", 0) else [])
    if isinstance(module, SFTModule):
        assert not settings.reinforcement and settings.moments == 2
        assert (settings.queries, settings.minibatch_queries, settings.group) == (data.batch_size, data.batch_size, 1)
        return
    assert (settings.queries, settings.group) == (data.queries_per_device, data.group_size)
    assert (settings.max_new_tokens, settings.eval_samples) == (data.max_new_tokens, data.eval_samples)
    assert settings.eval_queries == data.eval_queries
    assert (settings.num_iterations, settings.micro_batch_tokens) == (module.num_iterations, module.micro_batch_tokens)
    assert settings.minibatch_queries == module.minibatch_queries
    assert settings.share_prompts == (module.share_prompts and not settings.sharded)
    assert settings.rescore == bool(module.rescore) and settings.reference == module.loss.uses_reference
    assert settings.evaluate_all_rewards == module.evaluate_all_rewards
    assert settings.val_every(1) == trainer.val_check_interval
    assert settings.static_cache == (data.sampler.cache != "dynamic")
    saliency = [reward for reward in module.rewards.values() if hasattr(reward, "probe")]
    assert [(p.batch_tokens, p.gradients - 1, p.mask_copies, p.share) for p in settings.probes] == [
        (r.probe.batch_tokens, r.probe.solver.expected_gradients(), r.probe.solver.mask_copies, r.draw.share)
        for r in saliency
    ]


PLUGINS = """
import torch
from atmanrl.grpo import ClippedLoss, GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.probe.attributions import GradientAtStart
from atmanrl.probe.solvers import PaperSolver
from atmanrl.tasks import WordProblems

class Close(ClippedLoss):
    uses_reference = True
    def __init__(self):
        super().__init__()
        self.uses_reference = True

class Module(GRPOModule):
    def __init__(self, policy: Policy, num_iterations: int = 5, micro_batch_tokens: int = 77):
        super().__init__(policy, loss=Close(), num_iterations=num_iterations, micro_batch_tokens=micro_batch_tokens)

class Quick(PaperSolver):
    mask_copies = 3
    def expected_gradients(self):
        return self.steps / 50

class Few(WordProblems):
    def size(self, split):
        return 123

class ThreeMoments(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p] = {"step": torch.tensor(1.0), **{name: torch.zeros_like(p) for name in "abc"}}
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    (tmp_path / "plan_plugins.py").write_text(PLUGINS)
    monkeypatch.syspath_prepend(tmp_path)


def test_other_defaults_of_a_module_and_of_its_parts_are_planned(plugins, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("""
model: {class_path: plan_plugins.Module, init_args: {policy: {path: none/such}}}
data: {class_path: RolloutDataModule, init_args: {task: {class_path: plan_plugins.Few}}}
""")
    run, settings = read(f"--config={config}")
    assert (settings.num_iterations, settings.micro_batch_tokens, settings.reference) == (5, 77, True)
    assert settings.problems == 123 - run.datamodule.val_problems
    assert settings.max_epochs == 1000  # Lightning's, where nothing else ends a run
    assert settings.val_every(1) == settings.epoch_updates(1)  # Lightning's, once an epoch


@pytest.fixture(scope="module")
def laptop():
    """The objects of `configs/laptop.yaml`, in which a test may put others."""
    return PlannedRun([LAPTOP])


def of(run):
    return settings_of(run.model, run.datamodule, run.trainer, run.strategy)


def test_a_solver_says_what_it_costs(plugins, laptop, monkeypatch):
    from plan_plugins import Quick

    probe = laptop.model.rewards["saliency"].probe
    costs = []
    for solver in (Quick(), AdaptiveSolver(tolerance=0.008), AdaptiveSolver(tolerance=0.001)):
        monkeypatch.setattr(probe, "solver", solver)
        costs.append(of(laptop).probes[0])
    assert (costs[0].gradients, costs[0].mask_copies) == (200 / 50 + 1, 3)
    assert costs[2].gradients - 1 == pytest.approx(2 * (costs[1].gradients - 1))


@pytest.mark.parametrize(
    ("name", "options", "moments"),
    [
        ("SGD", {}, 0),
        ("SGD", {"momentum": 0.9}, 1),
        ("AdamW", {}, 2),
        ("Adafactor", {}, 2 / 64),
        ("ThreeMoments", {}, 3),
    ],
)
def test_an_optimizer_keeps_what_a_step_of_it_leaves(plugins, laptop, monkeypatch, name, options, moments):
    import plan_plugins

    kind = plan_plugins.ThreeMoments if name == "ThreeMoments" else getattr(torch.optim, name)
    monkeypatch.setattr(laptop.model, "optimizer", partial(kind, **options))
    assert of(laptop).moments == pytest.approx(moments, rel=0.1)


def test_an_optimizer_that_takes_no_step_here_is_counted_as_adamw(laptop, monkeypatch):
    monkeypatch.setattr(laptop.model, "optimizer", partial(torch.optim.AdamW, capturable=True))
    settings = of(laptop)
    assert settings.moments == 2 and any("AdamW, which takes no step on a CPU" in note for note in settings.notes)


def test_old_logprobs_are_computed_again_in_half_precision(laptop, monkeypatch):
    """As `GRPOModule.rescore` does by itself."""
    assert laptop.model.rescore is None and not of(laptop).rescore
    monkeypatch.setattr(laptop.model.policy, "dtype_name", "bfloat16")
    assert of(laptop).rescore
    monkeypatch.setattr(laptop.model, "rescore", False)
    assert not of(laptop).rescore


def test_what_is_not_counted_is_said(laptop, monkeypatch):
    saliency, data = laptop.model.rewards["saliency"], laptop.datamodule
    for owner, name, value, note in (
        (data, "resample_zero_spread", 2, "resample_zero_spread"),
        (data, "too_long", "drop", "too_long"),
        (data, "sampler", object(), "the engine of object"),
        (saliency, "only_where", Gate("outcome", 0.0), "only_where of the reward saliency"),
        (saliency.probe, "attribution", GradientAtStart(), "attribution of the reward saliency"),
    ):
        monkeypatch.setattr(owner, name, value)
        assert any(note in said for said in of(laptop).notes)
    monkeypatch.setitem(laptop.model.rewards, "gold", GoldLogprobReward())
    assert any("what the reward gold has the policy compute" in said for said in of(laptop).notes)


def test_fit_would_refuse_these(laptop, monkeypatch):
    for optimizer, reason in (
        (torch.optim.LBFGS, "LBFGS"),
        (partial(torch.optim.SGD, lr=-1), "optimizer was refused"),
    ):
        monkeypatch.setattr(laptop.model, "optimizer", optimizer)
        with pytest.raises(UserError, match=reason):
            of(laptop)
    with pytest.raises(UserError, match="no StochasticWeightAveraging here"):
        PlannedRun([LAPTOP, "--trainer.callbacks=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"])


@pytest.mark.parametrize("name", ["probe", "probe_second"])
def test_the_adaptive_solver_expects_what_was_measured(name):
    measured = json.loads((ROOT / f"experiments/benchmarks/results/{name}.json").read_text())
    for policy in measured["policies"].values():
        for tolerance, result in policy["fast"].items():
            expected = AdaptiveSolver(float(tolerance)).expected_gradients()
            assert expected == pytest.approx(result["gradients"], rel=0.25)


def test_bounds_of_what_a_solver_expects():
    assert PaperSolver(steps=30).expected_gradients() == 30
    assert AdaptiveSolver(tolerance=1e-9, steps=30).expected_gradients() == 30
    assert AdaptiveSolver(tolerance=0.1, steps=600, max_interval=20).expected_gradients() == 30
    checked = AdaptiveSolver(agreement=0.99, check_share=0.05).expected_gradients()
    assert checked == pytest.approx(1.05 * AdaptiveSolver().expected_gradients())
