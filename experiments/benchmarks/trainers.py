"""Our trainer and TRL's `GRPOTrainer` with equal settings, for the benchmarks that compare them.

Equal are: the weights and their float32 (computed with in bf16 by both where the setting says so), the problems of
every update, the optimizer (made by the same function), the constant learning rate, gradient clipping at 1, passes,
rollouts of a minibatch, clip range, loss, plain advantages, no KL term, the chat template, temperature 1 over the
whole vocabulary. Both run without gradient checkpointing, compilation, progress bars, logs to disk and loader
processes, with transformers' default attention and dynamic cache.

Different by design, and no part of the setting:

- TRL reads a problem's prompt once for each rollout and decodes until the last row is finished.
- It computes the old log-probabilities by another forward pass, where we keep the sampler's.
- It draws a minibatch's rollouts across groups, once an update; we draw whole groups, anew in each pass.
- It pads them to the longest of the update, and on a CPU its head scores the prompt's positions, too (on a GPU, where it
  has a kernel for it, the completion's alone).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from atmanrl.models.policy import Policy
from atmanrl.rewards import Reward
from atmanrl.rollouts import HFSampler, RolloutDataModule
from atmanrl.tasks import DELIMITER, Problem, WordProblems

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Setting:
    """What both trainers are told.

    Attributes:
        policy: folder of the model to start from.
        optimizer: makes the optimizer of the model's parameters.
        updates: batches of rollouts.
        seed: of the problems' order and of everything sampled.
        task_seed: another one, other problems.
        held_out: test problems for an evaluation.
        queries: problems of an update; group: rollouts of each; tokens: longest completion.
        iterations: passes over an update's rollouts.
        minibatch: problems' worth of rollouts in an optimizer step.
        epsilon: clip range.
        device: `cpu` or `cuda`.
        bf16: whether both compute in bf16 on their float32 weights.
        sampler: cache and compilation of ours, which TRL has nothing like.
    """

    policy: str
    optimizer: Optimizer
    updates: int
    seed: int = 0
    task_seed: int = 5
    held_out: int = 1
    queries: int = 8
    group: int = 8
    tokens: int = 128
    iterations: int = 2
    minibatch: int = 2
    epsilon: float = 0.2
    device: str = "cpu"
    bf16: bool = False
    sampler: tuple[Literal["dynamic", "static"], Literal[False, "auto"]] = ("dynamic", False)

    @property
    def steps(self) -> int:
        """Optimizer steps of an update."""
        return self.iterations * self.queries // self.minibatch

    def data(self) -> RolloutDataModule:
        """Training problems for exactly so many updates, and the held-out test problems."""
        size = self.updates * self.queries + 1  # one is held out, which nobody uses
        task = WordProblems(train_size=size, test_size=self.held_out, seed=self.task_seed, instruction="")
        return RolloutDataModule(
            task, queries_per_device=self.queries, group_size=self.group, max_new_tokens=self.tokens, val_problems=1,
            test_problems=self.held_out, seed=self.seed, sampler=HFSampler(*self.sampler),
        )  # fmt: skip


@dataclass
class Update:
    """What a trainer reports after an update; number 0 is the beginning of training, without rollouts.

    Attributes:
        number: updates done.
        model: being trained.
        rollout_s: seconds of sampling.
        tokens: sampled, ends of sequence included.
        accuracy: share of the rollouts that were right.
    """

    number: int
    model: nn.Module
    rollout_s: float = 0.0
    tokens: int = 0
    accuracy: float = 0.0


Watch = Callable[[Update], None]


def atmanrl_trainer(
    setting: Setting, folder: str, watch: Watch, rewards: dict[str, Reward] | None = None
) -> Callable[[], object]:
    """Our trainer, ready to run when it is called; `watch` is called before and after every update."""
    from lightning import Callback, Trainer

    from atmanrl.grpo import ClippedLoss, GRPOModule

    class Watched(Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            watch(Update(0, module.policy.model))

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            tokens = sum(len(r.completion.ids) for r in batch.rollouts)
            accuracy = sum(bool(r.correct) for r in batch.rollouts) / len(batch)
            watch(Update(trainer.global_step, module.policy.model, batch.seconds, tokens, accuracy))

    policy = Policy(setting.policy).build()
    module = GRPOModule(
        policy, rewards, setting.optimizer, loss=ClippedLoss(setting.epsilon),
        num_iterations=setting.iterations, minibatch_queries=setting.minibatch, seed=setting.seed,
    )  # fmt: skip
    trainer = Trainer(
        accelerator=setting.device, devices=1, precision="bf16-mixed" if setting.bf16 else "32-true",
        max_steps=setting.updates, limit_val_batches=0, logger=False, callbacks=[Watched()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    return partial(trainer.fit, module, datamodule=setting.data())


def trl_trainer(setting: Setting, folder: str, watch: Watch) -> Callable[[], object]:
    """TRL's trainer with the outcome as reward; as `atmanrl_trainer`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    data = setting.data()
    data.setup("fit")
    # in our loader's order, so that every update has the same problems
    problems: dict[str, Problem] = {p.id: p for batch in data.train_dataloader() for _, p in batch}
    done: dict[str, Any] = {}

    def outcome(completions: Any, problem_id: list[str], **_: Any) -> list[float]:
        answers = [completion[0]["content"].partition(DELIMITER) for completion in completions]
        right = [
            bool(mark) and data.task.is_right(answer.strip(), problems[row])
            for (_, mark, answer), row in zip(answers, problem_id, strict=True)
        ]
        done["accuracy"] = sum(right) / len(right)
        return [float(r) - 1 for r in right]

    class Timed(GRPOTrainer):
        def _generate(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            made = super()._generate(prompts, *args, **kwargs)
            done["rollout_s"] = time.perf_counter() - began
            done["tokens"] = sum(map(len, made[1]))  # completions without padding
            return made

    class Watched(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch(Update(0, model))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % setting.steps == 0:
                watch(Update(state.global_step // setting.steps, model, **done))

    model = AutoModelForCausalLM.from_pretrained(setting.policy, dtype=torch.float32)
    config = GRPOConfig(
        output_dir=folder, per_device_train_batch_size=setting.minibatch * setting.group,
        steps_per_generation=setting.queries // setting.minibatch, num_generations=setting.group,
        num_iterations=setting.iterations, max_completion_length=setting.tokens,
        max_steps=setting.updates * setting.steps, lr_scheduler_type="constant", max_grad_norm=1.0, temperature=1.0,
        beta=0.0, epsilon=setting.epsilon, loss_type="grpo", scale_rewards="none", bf16=setting.bf16,
        gradient_checkpointing=False, use_cpu=setting.device == "cpu", seed=setting.seed, shuffle_dataset=False,
        save_strategy="no", report_to="none", logging_steps=setting.steps, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [{"prompt": [{"role": "user", "content": p.question}], "problem_id": key} for key, p in problems.items()]
    trainer = Timed(
        model, outcome, config, Dataset.from_list(rows), callbacks=[Watched()],
        processing_class=AutoTokenizer.from_pretrained(setting.policy),
        optimizers=(setting.optimizer(model.parameters()), None),
    )  # fmt: skip
    return trainer.train
