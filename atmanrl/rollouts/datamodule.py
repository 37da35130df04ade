"""`RolloutDataModule`: problems in, rollouts out. It feeds both LightningModules with the same `RolloutBatch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from atmanrl.distributed import all_gather, inference_copy, processes
from atmanrl.errors import UserError
from atmanrl.horizon import batches_done, check_interval, planned_updates
from atmanrl.io.row_files import RowFiles
from atmanrl.models.policy import Policy
from atmanrl.rollouts import traces
from atmanrl.rollouts.answering import ProblemBatch, TraceBatch, answer
from atmanrl.rollouts.batch import RolloutBatch
from atmanrl.rollouts.order import Block, EpochOrder, digest
from atmanrl.rollouts.prompt_lengths import TooLong, check_limits, fitting_problems
from atmanrl.rollouts.resampling import ProblemRow, resample, reserves
from atmanrl.rollouts.sampler import Sampler, SamplingOptions
from atmanrl.rollouts.sampling import HFSampler
from atmanrl.rollouts.seeds import group_uniforms
from atmanrl.rollouts.split import Splitter, splitter_of
from atmanrl.tasks import DELIMITER, Problem, Task
from atmanrl.tasks.base import readable_problems


class RolloutDataModule(LightningDataModule):
    """Rollouts of the live policy, by a sampler, or read from a file of stored traces.

    Sampling happens in `on_after_batch_transfer`, which runs once a batch, on the device, right before the step.

    Args:
        task: where problems come from and who judges the answers; not needed with `traces`.
        traces: a file of stored traces, or a folder of such files (see `rollouts.traces`), for probing and prediction.
        queries_per_device: problems of one update on each device.
        group_size: rollouts of each problem.
        max_new_tokens: longest completion, in tokens.
        temperature: of sampling, in training and in evaluation; so are the next four.
        top_k: only the k likeliest tokens are drawn; 0 takes all (see `rollouts.truncation`).
        top_p: only the likeliest tokens that together have this probability are drawn; 1 takes all.
        min_p: only tokens with at least this part of the likeliest one's probability are drawn; None takes all.
        stop: strings that end a completion, which keeps them; None for the end-of-sequence token alone.
        resample_zero_spread: how many times a training group whose answers are all right or all wrong is replaced by
            one of another problem, if need be (see `rollouts.resampling`); 0 keeps it.
        val_problems: training problems held out for `validate`, drawn by seed.
        test_problems: test problems drawn by seed for `test` and `predict`.
        eval_samples: rollouts of each problem in evaluation.
        eval_queries: problems answered, or stored traces taken, at once in evaluation.
        seed: of the order of problems, of the held-out draw and of every sampled token.
        sampler: what answers the prompts; None takes `HFSampler` as it is by default.
        max_prompt_tokens: longest prompt, in tokens; None takes what `max_new_tokens` leave of the model's context.
        too_long: what becomes of problems with longer prompts: `error`, before anything is trained, or `drop`, which
            leaves them out and says how many.
        delimiter: between reasoning and answer: a text, or a `Splitter` by its class path, such as `BoxedSplitter`.

    Attributes:
        sampling: the options that the sampler gets.
        splitter: what splits completions.
    """

    def __init__(
        self,
        task: Task | None = None,
        traces: str | None = None,
        queries_per_device: int = 8,
        group_size: int = 8,
        max_new_tokens: int = 1024,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float | None = None,
        stop: list[str] | None = None,
        resample_zero_spread: int = 0,
        val_problems: int = 100,
        test_problems: int = 500,
        eval_samples: int = 4,
        eval_queries: int = 32,
        seed: int = 0,
        sampler: Sampler | None = None,
        max_prompt_tokens: int | None = None,
        too_long: TooLong = "error",
        delimiter: Splitter | str = DELIMITER,
    ) -> None:
        super().__init__()
        if (task is None) == (traces is None):
            raise UserError("give either data.task (rollouts of the live policy) or data.traces (stored ones).")
        for name, value in {
            "queries_per_device": queries_per_device, "val_problems": val_problems, "test_problems": test_problems,
            "eval_samples": eval_samples, "eval_queries": eval_queries,
        }.items():  # fmt: skip
            if value < 1:
                raise UserError(f"data.{name} is {value}; give at least 1.")
        if group_size < 2:
            raise UserError(f"data.group_size is {group_size}; a group's advantage needs at least 2 rollouts.")
        if resample_zero_spread < 0:
            raise UserError(
                f"data.resample_zero_spread is {resample_zero_spread}; give a number of rounds, 0 for none."
            )
        self.splitter = splitter_of(delimiter)
        self.splitter.check_stop(stop or ())
        if task is not None:
            task.ask_for(self.splitter.instruction)
        self.task, self.traces = task, traces
        self.queries_per_device, self.group_size = queries_per_device, group_size
        self.max_new_tokens, self.temperature = max_new_tokens, temperature
        self.sampling = SamplingOptions(max_new_tokens, temperature, top_k, top_p, min_p, tuple(stop or ()))
        self.sampler = HFSampler() if sampler is None else sampler
        self.resample_zero_spread = resample_zero_spread
        self.val_problems, self.test_problems = val_problems, test_problems
        self.eval_samples, self.eval_queries = eval_samples, eval_queries
        self.seed = seed
        check_limits(max_prompt_tokens, too_long)
        self.max_prompt_tokens, self.too_long = max_prompt_tokens, too_long
        self.rows: dict[str, list[ProblemRow]] = {}
        self._synced_update: int | None = None

    def setup(self, stage: str) -> None:
        """Read the task's problems and hold some out. A row is a problem's number in its split's file."""
        self._synced_update = None  # another command may bring other weights
        if self.task is None:
            return
        if stage in ("fit", "validate") and "train" not in self.rows:
            rows = self._fitting(self._shuffled(readable_problems(self.task, "train")))
            update = self.queries_per_device * processes().count
            if len(rows) < self.val_problems + update:
                raise UserError(
                    f"{type(self.task).__name__} has {len(rows)} training problems: too few to hold out "
                    f"data.val_problems={self.val_problems} and to fill one update of {update} (data.queries_per_device "
                    f"on {processes().count} processes)."
                )
            self.rows["val"], self.rows["train"] = rows[: self.val_problems], rows[self.val_problems :]
        if stage in ("test", "predict") and "test" not in self.rows:
            rows = self._shuffled(readable_problems(self.task, "test"))
            # only with `drop` do others take the place of problems that are too long
            self.rows["test"] = self._fitting(rows if self.too_long == "drop" else rows[: self.test_problems])
            self.rows["test"] = self.rows["test"][: self.test_problems]

    def order_options(self) -> dict[str, Any]:
        """Return the options on which the order of problems depends; a run that is resumed cannot change them."""
        if self.task is None:
            return {}
        return {
            "data.queries_per_device (times the number of processes)": self.queries_per_device * processes().count,
            "data.seed": self.seed, "data.val_problems": self.val_problems,
            "data.task (a digest of its problems)": digest(p for _, p in self.rows["val"] + self.rows["train"]),
        }  # fmt: skip

    def _fitting(self, rows: list[ProblemRow]) -> list[ProblemRow]:
        policy = None if self.trainer is None else getattr(self.trainer.lightning_module, "policy", None)
        if self.task is None or not isinstance(policy, Policy):
            return rows
        return fitting_problems(rows, self.task, policy, self.max_new_tokens, self.max_prompt_tokens, self.too_long)

    def train_dataloader(self) -> DataLoader[ProblemRow]:
        """Return the loader of training problems: a batch for each update, without the last, smaller one of an epoch."""
        rows = self._rows("train", "fit")
        order = EpochOrder(
            len(rows), self.seed, lambda: batches_done(self.trainer), processes(), self.queries_per_device
        )
        check_interval(self.trainer, order.updates)
        # a generator of its own keeps the loader from drawing on the global random state
        return DataLoader(
            cast("Dataset[ProblemRow]", rows), batch_size=self.queries_per_device, sampler=order, collate_fn=ProblemBatch,
            drop_last=True, generator=torch.Generator().manual_seed(self.seed),
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[ProblemRow]:
        """Return the loader of the held-out training problems."""
        return self._evaluation(self._rows("val", "validate"), "data.val_problems", ProblemBatch)

    def test_dataloader(self) -> DataLoader[ProblemRow]:
        """Return the loader of the drawn test problems."""
        return self._evaluation(self._rows("test", "test"), "data.test_problems", ProblemBatch)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the stored traces, or else of the drawn test problems."""
        if self.traces is None:
            return self.test_dataloader()
        files = RowFiles(Path(self.traces))
        stored = traces.readings(files, splitter=self.splitter)
        rows = [(files.place(n), i, reading.trace) for i, (n, reading) in enumerate(stored)]
        if not rows:
            raise traces.TraceError(f"{files.path} holds no trace.")
        return self._evaluation(rows, "data.traces", TraceBatch)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Let the policy answer the problems."""
        assert self.trainer is not None
        policy = cast(Policy, self.trainer.lightning_module.policy)
        if isinstance(batch, TraceBatch):
            rollouts = [traces.from_json(trace, row, policy, where, self.splitter) for where, row, trace in batch]
            return RolloutBatch(rollouts, group_size=1)
        if not isinstance(batch, ProblemBatch):
            return batch
        with self.trainer.precision_plugin.forward_context(), inference_copy(policy):
            if self._synced_update != self.trainer.global_step:
                self.sampler.sync(policy)
                self._synced_update = self.trainer.global_step
            answered = self._answered(policy, batch, self.trainer)
        answered.update = self.trainer.global_step
        if self.trainer.training:
            first = processes().rank * len(batch)
            rows = [rollout.row for rollout in answered.rollouts[:: answered.group_size]]
            answered.places = {row: first + i for i, row in enumerate(rows)}
        answered.updates = (planned_updates(self.trainer) if self.trainer.training else None) or -1
        return answered

    def answer(
        self, policy: Policy, problems: Sequence[ProblemRow], split_name: str, update: int, samples: int
    ) -> RolloutBatch:
        """Sample `samples` rollouts of each problem for an update, split them, and judge the answers."""
        assert self.task is not None
        rows = [row for row, _ in problems]
        uniforms = group_uniforms(self.seed, split_name, update, rows, samples, self.max_new_tokens)
        batch = answer(policy, problems, self.task, self.splitter, self.sampler, self.sampling, uniforms)
        return replace(batch, seed=self.seed)

    def _answered(self, policy: Policy, problems: ProblemBatch, trainer: Trainer) -> RolloutBatch:
        """Rollouts of the trainer's stage; groups of training that have no spread make way for others."""
        split_name, update, samples = self._stage(trainer)
        answered = self.answer(policy, problems, split_name, update, samples)
        if split_name == "train" and self.resample_zero_spread:
            asked = [row for rows in all_gather([row for row, _ in problems]) for row in rows]
            spare = reserves(self.rows["train"], asked, f"{self.seed}/resample/{update}")
            first = processes().rank * len(problems)
            answered = resample(
                answered, spare[first : first + len(problems)],
                lambda rows: self.answer(policy, rows, split_name, update, samples), self.resample_zero_spread,
            )  # fmt: skip
        return answered

    def _rows(self, split_name: str, command: str) -> list[ProblemRow]:
        if self.task is None:
            raise UserError(f"`{command}` samples from the live policy: give data.task instead of data.traces.")
        return self.rows[split_name]

    def _shuffled(self, problems: Sequence[Problem]) -> list[ProblemRow]:
        order = torch.randperm(len(problems), generator=torch.Generator().manual_seed(self.seed))
        return [(row, problems[row]) for row in order.tolist()]

    def _evaluation(self, rows: list[Any], name: str, collate: type[list[Any]]) -> DataLoader[Any]:
        if len(rows) < processes().count:
            raise UserError(
                f"{name} gives {len(rows)} problems to {processes().count} processes: one would have none to answer. "
                "Give more of them, or take fewer devices."
            )
        block = Block(len(rows), processes())
        return DataLoader(cast("Dataset[Any]", rows), batch_size=self.eval_queries, sampler=block, collate_fn=collate)

    def _stage(self, trainer: Trainer) -> tuple[str, int, int]:
        """Split, update and samples a problem, for the seeds; evaluation leaves the update out (0)."""
        if trainer.training:
            return "train", trainer.global_step, self.group_size
        held_out = trainer.validating or trainer.sanity_checking
        return ("val" if held_out else "test"), 0, self.eval_samples
