"""Runs of a few updates of the tiny policy: their rollouts, their rewards, and what they logged."""

import logging

import torch
from lightning import Trainer

from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.rewards import Reward
from atmanrl.rollouts import Completion, RolloutDataModule, split
from atmanrl.tasks import WordProblems

QUERIES, GROUP = 3, 2


class Lottery(Reward):
    """Luck, but the same luck for the same tokens: a random policy is never right, so outcomes would all be equal."""

    def __call__(self, batch, policy):
        return torch.tensor([sum(r.completion.ids) % 7 / 7 for r in batch.rollouts])


class Fixed(Reward):
    """The same rewards in every update."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.given = values

    def __call__(self, batch, policy):
        return torch.tensor(self.given)


class Feed(RolloutDataModule):
    """Rollouts of word problems; it keeps the batches that it gave."""

    def __init__(self, written: bool = False, **options) -> None:
        task = WordProblems(train_size=10, test_size=3, instruction="")
        defaults = {"queries_per_device": QUERIES, "group_size": GROUP, "max_new_tokens": 6, "val_problems": 4}
        super().__init__(task, **(defaults | {"eval_samples": 2, "eval_queries": 3} | options))
        self.written, self.given = written, []

    def answer(self, policy, *args):
        batch = super().answer(policy, *args)
        for i, rollout in enumerate(batch.rollouts):
            if self.written and i % batch.group_size:  # what a random policy would never write
                ids = [*policy.tokenizer(f"so {i} + 4 = {i + 4}. ##### {i}").input_ids, policy.eos_ids[0]]
                rollout.completion = Completion(ids, [-6.6] * len(ids), True)
                rollout.parts, rollout.correct = split(policy.tokenizer, ids), i % 4 == 1
        self.given.append(batch)
        return batch


class Run:
    """A fit of a module on the tiny policy in float64, with SGD steps counted."""

    def __init__(self, folder, updates: int = 2, feed: Feed | None = None, lr: float = 1.0, **options) -> None:
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        self.steps, self.feed = 0, feed or Feed()
        policy = Policy(str(folder), dtype="float64")
        options = {"rewards": {"lottery": Lottery()}} | options
        self.module = GRPOModule(policy, optimizer=lambda parameters: self.counted(parameters, lr), **options)
        self.fit(updates)

    def fit(self, updates: int, **options) -> None:
        """Once more by another trainer, with options of its own."""
        self.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, max_steps=updates,
                               enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
                               **options)  # fmt: skip
        if updates:
            self.trainer.fit(self.module, self.feed)

    def evaluate(self) -> dict[str, float]:
        self.trainer.limit_val_batches = 1.0
        return self.trainer.validate(self.module, self.feed, verbose=False)[0]

    def counted(self, parameters, lr: float) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=lr)
        optimizer.register_step_post_hook(lambda *_: setattr(self, "steps", self.steps + 1))
        return optimizer

    @property
    def weights(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in self.module.policy.parameters()])

    @property
    def logged(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.trainer.callback_metrics.items()}
