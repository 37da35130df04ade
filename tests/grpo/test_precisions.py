"""Every precision that Lightning names trains, on a CPU as on a GPU, or is refused in a sentence."""

import math
from typing import get_args

import pytest
import torch
from conftest import ROOT
from lightning import Trainer
from lightning.fabric.plugins.precision.precision import _PRECISION_INPUT
from lightning.pytorch.plugins.precision import MixedPrecision
from tiny_runs import Feed, Lottery

from atmanrl.__main__ import main
from atmanrl.errors import UserError
from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import LoRA, Policy
from atmanrl.models.precision import check_precision
from atmanrl.probe import MaskProbe
from atmanrl.probe.solvers import AdaptiveSolver
from atmanrl.rewards import SaliencyReward

NAMES = [name for kind in get_args(_PRECISION_INPUT) for name in get_args(kind)]
TRAINS = {"32-true", "32", 32, "bf16-mixed", "bf16", "16-mixed", "16", 16, None}
FLOAT16 = {"16-mixed", "16", 16}


class Fit:
    """One update of the tiny policy, with a saliency reward and prompts of unequal length."""

    def __init__(
        self, folder, precision=None, plugins=None, dtype="float32", optimizer=torch.optim.SGD, **options
    ) -> None:
        self.feed = Feed(written=True)
        probe = MaskProbe(solver=AdaptiveSolver(tolerance=0.3))
        rewards = {"lottery": Lottery(), "saliency": SaliencyReward(probe=probe)}
        self.module = GRPOModule(
            Policy(str(folder), dtype=dtype), rewards, lambda p: optimizer(p, lr=0.1), num_iterations=1,
            minibatch_queries=3, **options,
        )  # fmt: skip
        # Lightning's own choice for 16-mixed on a CPU is bf16-mixed; the plugin has the scaler that a GPU would have
        self.trainer = Trainer(
            accelerator="cpu", devices=1, precision=precision, plugins=plugins, logger=False, max_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        self.trainer.fit(self.module, self.feed)
        self.logged = {name: float(value) for name, value in self.trainer.callback_metrics.items()}

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.module.policy.parameters()])


def scaled() -> list[MixedPrecision]:
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]


@pytest.fixture(scope="module")
def plain(tiny_folder) -> Fit:
    return Fit(tiny_folder, "32-true", rescore=True)


def test_lightning_names_what_is_tested_here():
    assert {64, "64-true", "16-true", "bf16-true", "transformer-engine"} < set(NAMES) and TRAINS - {None} < set(NAMES)


@pytest.mark.filterwarnings("ignore:`precision=.*is supported for historical reasons")
@pytest.mark.parametrize("name", [None, *NAMES])
def test_every_precision_trains_or_is_refused(tiny_folder, start_norm, name, plain):
    if name not in TRAINS:
        with pytest.raises(UserError, match=r"^trainer\.precision .*(give|choose) ") as error:
            check_precision(name, "float32")
        assert str(error.value).endswith(".") and ". " not in str(error.value)
        if "transformer" not in str(name):  # which the trainer refuses for want of the library
            with pytest.raises(UserError, match=r"^trainer\.precision .*--model\.policy\.dtype="):
                Fit(tiny_folder, name)
        return
    fit = Fit(tiny_folder, plugins=scaled()) if name in FLOAT16 else Fit(tiny_folder, name, rescore=True)
    assert {p.dtype for p in fit.module.policy.parameters()} == {torch.float32}
    assert all(math.isfinite(value) for value in fit.logged.values()), fit.logged
    moved, expected = fit.weights - start_norm, plain.weights - start_norm
    if "bf" in str(name):  # some of the sampled tokens are others, and so is the gradient
        assert torch.cosine_similarity(moved, expected, dim=0) > 0.5
        return
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.9
    assert fit.logged["grad_norm"] == pytest.approx(plain.logged["grad_norm"], rel=0.1)
    assert fit.logged["rewards/saliency/mean"] == pytest.approx(plain.logged["rewards/saliency/mean"], abs=0.02)


@pytest.fixture
def start_norm(tiny_folder) -> torch.Tensor:
    """The weights that every fit starts from."""
    return torch.cat([p.detach().flatten() for p in Policy(str(tiny_folder)).build().parameters()])


def test_gradients_are_clipped_after_they_are_unscaled(tiny_folder, start_norm):
    whole = Fit(tiny_folder, plugins=scaled(), max_grad_norm=None)
    limit = whole.logged["grad_norm"] / 4
    clipped = Fit(tiny_folder, plugins=scaled(), max_grad_norm=limit)
    assert clipped.logged["grad_norm"] == pytest.approx(4 * limit, rel=1e-3)
    assert float((clipped.weights - start_norm).norm()) == pytest.approx(0.1 * limit, rel=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_policys_dtype_takes_the_place_of_a_true_precision(tiny_folder, dtype):
    fit = Fit(tiny_folder, "32-true", dtype=dtype)
    assert {p.dtype for p in fit.module.policy.parameters()} == {getattr(torch, dtype)}
    assert math.isfinite(fit.logged["loss"]) and fit.logged["grad_norm"] > 0


@pytest.mark.parametrize(("precision", "dtype", "advice"), [
    ("bf16-mixed", "float64", "give model.policy.dtype float32, or trainer.precision 32-true"),
    ("16-mixed", "float64", "give model.policy.dtype float32"),
    ("16-mixed", "float16", "which float16 weights cannot have; give model.policy.dtype float32"),
])  # fmt: skip
def test_a_precision_that_does_not_suit_the_weights_is_refused(precision, dtype, advice):
    with pytest.raises(UserError, match=advice):
        check_precision(precision, dtype)


def test_adapters_on_float16_weights_may_learn_in_16_mixed():
    assert LoRA() and check_precision("16-mixed", "float16", trains_weights=False) == "16-mixed"


def test_a_fused_optimizer_is_refused_in_16_mixed(tiny_folder):
    def fused(parameters, lr):
        return torch.optim.SGD(parameters, lr, fused=True)

    with pytest.raises(UserError, match="model.optimizer is fused: .* give it fused: false"):
        Fit(tiny_folder, plugins=scaled(), optimizer=fused)


@pytest.mark.parametrize("name", ["64-true", "bf16-true", "transformer-engine", "transformer-engine-float16"])
def test_the_command_line_refuses_before_anything_is_written(tmp_path, capsys, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    root = tmp_path / "run"
    options = [f"--trainer.precision={name}", f"--trainer.default_root_dir={root}"]
    assert main(["fit", "--config=configs/laptop.yaml", *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: --trainer.precision " + name) and error.count("\n") == 1
    assert not root.exists()
