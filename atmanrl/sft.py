"""The supervised warm start: `SFTModule` and its data, worked solutions of a task."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from atmanrl.distributed import build, processes
from atmanrl.errors import UserError
from atmanrl.horizon import batches_done, check_interval, needed_updates
from atmanrl.models.batching import positions
from atmanrl.models.logits import logits_at
from atmanrl.models.policy import Policy
from atmanrl.models.token_scores import token_logprobs
from atmanrl.rollouts.order import digest
from atmanrl.rollouts.split import Splitter, splitter_of
from atmanrl.tasks import DELIMITER, Task
from atmanrl.tasks.base import readable_problems


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of the completion that the policy is to learn.

    Example:
        `Example(prompt=[1, 52, 9], completion=[7, 4, 2])`
    """

    prompt: list[int]
    completion: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


class ByLength(Sampler[list[int]]):
    """Draws batches of examples of about the same length, in another order each epoch.

    Args:
        lengths: of the examples, in tokens.
        batch_size: examples of a batch; what is left over at an epoch's end is left out.
        seed: of the order.
        window: batches among which examples are sorted by length.
        done: says how many batches of the epoch a run that goes on has behind it.
    """

    def __init__(
        self, lengths: list[int], batch_size: int, seed: int, window: int = 32, done: Callable[[], int] = lambda: 0
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.window, self.done = lengths, batch_size, seed, window, done
        self.epoch = 0
        self.sampler = self  # where Lightning looks for a batch sampler's `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Take the number of the epoch, which Lightning calls this with."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        span = self.batch_size * self.window
        for start in range(0, len(order), span):
            chunk = sorted(order[start : start + span], key=self.lengths.__getitem__)
            batches += [chunk[i : i + self.batch_size] for i in range(0, len(chunk), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        for i in torch.randperm(len(full), generator=generator).tolist()[self.done() :]:
            yield full[i]


class SFTDataModule(LightningDataModule):
    """Worked solutions of a task's training problems, the last `val_problems` of them held out.

    Args:
        task: its problems need a `solution`.
        batch_size: examples a step.
        val_problems: how many training problems are held out to measure the loss.
        seed: of the order of the examples.
        delimiter: what the policy is to write between reasoning and answer: a text, or a `Splitter` by its class path.
    """

    def __init__(
        self,
        task: Task,
        batch_size: int = 64,
        val_problems: int = 500,
        seed: int = 0,
        delimiter: Splitter | str = DELIMITER,
    ) -> None:
        super().__init__()
        self.splitter = splitter_of(delimiter)
        task.ask_for(self.splitter.instruction)
        self.task, self.batch_size, self.val_problems, self.seed = task, batch_size, val_problems, seed
        self.examples: list[Example] = []
        self.pad_id = 0

    def setup(self, stage: str) -> None:
        """Tokenize the solutions with the policy's tokenizer."""
        assert self.trainer is not None
        if processes().count > 1:
            raise UserError("the supervised warm start runs on one process; give --trainer.devices=1.")
        policy: Policy = self.trainer.lightning_module.policy.build()  # type: ignore[operator,union-attr]
        self.pad_id = policy.pad_id
        self.examples = []
        for problem in readable_problems(self.task, "train"):
            if problem.solution is None:
                raise UserError(
                    f"{problem.id} has no worked solution: {type(self.task).__name__} cannot be used for SFT."
                )
            reply = self.splitter.join(problem.solution, problem.gold)
            visible = self.splitter.visible(policy.tokenizer)
            self.examples.append(Example(*policy.encode_turn(self.task.prompt(problem), reply, visible)))
        if not 0 < self.val_problems < len(self.examples):
            raise UserError(
                f"data.val_problems is {self.val_problems}; of the task's {len(self.examples)} problems hold out at "
                "least 1 and fewer than all."
            )

    def order_options(self) -> dict[str, Any]:
        """Return what the order of examples depends on, by option; a run that goes on cannot change it."""
        return {
            "data.batch_size": self.batch_size, "data.seed": self.seed, "data.val_problems": self.val_problems,
            "data.task (a digest of its problems)": digest(self.task.problems("train")),
        }  # fmt: skip

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Return batches of training examples of like lengths."""
        examples = self.examples[: -self.val_problems]
        sampler = ByLength(
            [len(e) for e in examples], self.batch_size, self.seed, done=lambda: batches_done(self.trainer)
        )
        check_interval(self.trainer, len(sampler))
        # a generator of its own keeps the loader from drawing on the global random state
        return DataLoader(
            examples, batch_sampler=sampler, collate_fn=self.collate, generator=torch.Generator().manual_seed(self.seed),  # type: ignore[arg-type]
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Return batches of the held-out problems."""
        examples = sorted(self.examples[-self.val_problems :], key=len)
        return DataLoader(examples, batch_size=self.batch_size, collate_fn=self.collate)  # type: ignore[arg-type]

    def collate(self, examples: list[Example]) -> dict[str, Tensor]:
        """Return right-padded `input_ids`, `attention_mask` and `learn` (true on completion tokens), each `[B, S]`."""
        ids = [torch.tensor(e.prompt + e.completion) for e in examples]
        learn = [torch.arange(len(e)) >= len(e.prompt) for e in examples]
        mask = [torch.ones(len(e), dtype=torch.long) for e in examples]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_id),
            "attention_mask": pad_sequence(mask, batch_first=True),
            "learn": pad_sequence(learn, batch_first=True),
        }


class SFTModule(LightningModule):
    """Learns completions by cross-entropy, with AdamW, linear warm-up and cosine decay to a tenth.

    Args:
        policy: the model to train.
        lr: peak learning rate.
        warmup_steps: steps of linear warm-up.
        weight_decay: of AdamW.
    """

    def __init__(self, policy: Policy, lr: float = 2e-3, warmup_steps: int = 100, weight_decay: float = 0.05) -> None:
        super().__init__()
        self.policy, self.lr, self.warmup_steps, self.weight_decay = policy, lr, warmup_steps, weight_decay

    def configure_model(self) -> None:
        """Load the policy, or draw its weights; sharded where the strategy is FSDP2."""
        build(self.policy, self).train()

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the completion tokens, in nats a token."""
        learn = batch["learn"]
        before = learn.roll(-1, dims=1)
        before[:, -1] = False
        mask = batch["attention_mask"]
        logits = logits_at(
            self.policy.model, before, input_ids=batch["input_ids"], attention_mask=mask, position_ids=positions(mask),
            use_cache=False,
        )  # fmt: skip
        return -token_logprobs(logits, batch["input_ids"][learn]).mean()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return a step's loss."""
        loss = self.loss(batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss on held-out problems."""
        self.log("val/loss", self.loss(batch), prog_bar=True, batch_size=len(batch["input_ids"]))

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Make AdamW over some parameters."""
        return torch.optim.AdamW(parameters, lr=self.lr, betas=(0.9, 0.95), weight_decay=self.weight_decay)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        """Return AdamW with the schedule, which spans the trainer's `max_steps`."""
        optimizer = self.optimizer(self.policy.parameters())
        total = needed_updates(self.trainer, "")

        def scale(step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            progress = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
            return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
