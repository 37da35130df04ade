"""`MaskProbe` as a Lightning module: validated, tested, fitted, and predicting stored traces."""

import pytest
import torch
from lightning import LightningDataModule, Trainer
from probe_reference import strengthen
from probed_texts import STEPS, TEXTS, probe, rollouts
from torch.utils.data import DataLoader

from atmanrl.models.policy import Policy
from atmanrl.rollouts import RolloutBatch, RolloutDataModule, traces


@pytest.fixture
def policy(tiny_policy):
    strengthen(tiny_policy.model, 5.0)
    return tiny_policy


class Stored(LightningDataModule):
    """Rollouts by hand."""

    def __init__(self, *batches: RolloutBatch) -> None:
        super().__init__()
        self.batches = list(batches)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    train_dataloader = test_dataloader = val_dataloader


@pytest.fixture
def trainer(tmp_path) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, max_epochs=1,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["validate", "test", "fit"])
def test_runs_in_a_trainer(policy, trainer, command):
    made = rollouts(policy)
    expected = probe().solve(policy, RolloutBatch(made, 1))
    data = Stored(RolloutBatch(made[:1], 1), RolloutBatch(made[1:], 1))
    getattr(trainer, command)(probe(policy), datamodule=data)
    prefix = {"validate": "val/", "test": "test/", "fit": ""}[command]
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if command != "fit":  # there the last batch's is shown
        assert figures[prefix + "saliency"] == pytest.approx(float(expected.reward.mean()), abs=2e-5)
    assert figures[prefix + "probe/gradients"] == STEPS
    assert [r.rewards["saliency"] for r in made] == pytest.approx(expected.reward.tolist(), abs=2e-5)
    assert [len(r.saliency) for r in made] == [r.parts.cot_length for r in made]


def test_predicts_stored_traces(tiny_policy, tiny_folder, trainer, tmp_path):
    """With a policy that is loaded by the trainer, as `atmanrl probe` does."""
    policy = tiny_policy
    made = rollouts(policy, [*TEXTS, ("2 + 2?", " that is 4", "4")])
    expected = probe().solve(policy, RolloutBatch(made, 1))
    traces.write(made, tmp_path / "traces.jsonl")
    module = probe(Policy(str(tiny_folder), dtype="float64"))
    predicted = trainer.predict(module, datamodule=RolloutDataModule(traces=str(tmp_path / "traces.jsonl")))
    found = [r for batch in predicted for r in batch]
    assert [r.problem.id for r in found] == [r.problem.id for r in made]
    rewards = torch.tensor([r.rewards["saliency"] for r in found])
    torch.testing.assert_close(rewards, expected.reward, rtol=0, atol=2e-5, equal_nan=True)
    assert found[-1].saliency is None
