"""`GRPOModule`: the outer loop. One training step is one update: rewards, advantages, and a few optimizer steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from atmanrl.distributed import build, clip_gradients, everyone, gathered, processes, reducing
from atmanrl.errors import UserError
from atmanrl.forward import length_batches, logits_at, positions, token_logprobs
from atmanrl.grpo.advantages import Scaling, group_advantages
from atmanrl.grpo.figures import UpdateFigures, rollout_figures
from atmanrl.grpo.objective import Aggregation, Importance, Objective, clipped_objective, normalizer
from atmanrl.grpo.processes import deal, exchange, weighted_means
from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.policy import Policy, check_same
from atmanrl.rewards import OutcomeReward, Reward, score
from atmanrl.rollouts.batch import Rollout, RolloutBatch, Sequences


def paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    """AdamW at the paper's learning rate of 8e-7, without weight decay."""
    return torch.optim.AdamW(parameters, lr=8e-7, weight_decay=0.0)


class GRPOModule(LightningModule):
    """Trains the policy on rollouts by GRPO with any rewards.

    Optimization is manual. Steps, limits and checkpoints count updates: one batch of rollouts each, whatever the number
    of optimizer steps within.

    Args:
        policy: the model to train.
        rewards: rewards by name; outcome alone by default.
        optimizer: a callable of the parameters.
        num_iterations: passes over the rollouts of an update.
        minibatch_queries: queries of one optimizer step, on each device.
        micro_batch_tokens: most tokens, padding counted, in one forward pass of the update.
        epsilon: clip range of the importance ratio below 1.
        epsilon_high: clip range above 1; None takes epsilon.
        loss_type: aggregation over tokens, see `grpo.objective`.
        importance_sampling_level: `token` or `sequence`.
        scale_rewards: `none`, `group` or `batch`, see `grpo.advantages`.
        rescore: whether the old log-probabilities are computed again with the update's own forward pass. None does so
            for weights in less than float32, where the sampler's differ by up to 0.04.
        max_grad_norm: gradients are clipped to this norm; None leaves them.
        evaluate_all_rewards: whether evaluation also calls rewards that run the policy (the saliency reward).
        seed: of the order of minibatches.
    """

    def __init__(
        self,
        policy: Policy,
        rewards: dict[str, Reward] | None = None,
        optimizer: OptimizerCallable = paper_optimizer,
        num_iterations: int = 2,
        minibatch_queries: int = 2,
        micro_batch_tokens: int = 16384,
        epsilon: float = 0.2,
        epsilon_high: float | None = None,
        loss_type: Aggregation = "grpo",
        importance_sampling_level: Importance = "token",
        scale_rewards: Scaling = "none",
        rescore: bool | None = None,
        max_grad_norm: float | None = 1.0,
        evaluate_all_rewards: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if num_iterations < 1 or minibatch_queries < 1 or micro_batch_tokens < 1:
            raise UserError("model.num_iterations, minibatch_queries and micro_batch_tokens must be at least 1.")
        if not 0 < epsilon < 1 or (epsilon_high is not None and epsilon_high <= 0):
            raise UserError("model.epsilon must lie between 0 and 1, and epsilon_high above 0.")
        self.policy = policy
        self.rewards: dict[str, Reward] = {"outcome": OutcomeReward()} if rewards is None else rewards
        self.optimizer = optimizer
        self.num_iterations, self.minibatch_queries = num_iterations, minibatch_queries
        self.micro_batch_tokens = micro_batch_tokens
        self.epsilon, self.epsilon_high = epsilon, epsilon_high
        self.loss_type: Aggregation = loss_type
        self.level: Importance = importance_sampling_level
        self.scale_rewards: Scaling = scale_rewards
        self.rescore = rescore
        self.max_grad_norm = max_grad_norm
        self.evaluate_all_rewards = evaluate_all_rewards
        self.seed = seed
        self.temperature, self.max_new_tokens = 1.0, 1024
        self.tokens_seen = 0
        self.pass_at_k: PassAtK | None = None
        self.evaluated: list[tuple[dict[str, float], float]] = []

    def configure_model(self) -> None:
        """Load the policy, sharded where the strategy is FSDP2."""
        build(self.policy, self)

    def setup(self, stage: str) -> None:
        """Take over what the data module decides: temperature, completion length, samples in evaluation."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.temperature, self.max_new_tokens = data.temperature, data.max_new_tokens
        self.pass_at_k = PassAtK(sorted({1, data.eval_samples}))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer that was asked for, over the trainable parameters."""
        return self.optimizer([p for p in self.policy.parameters() if p.requires_grad])

    def training_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """One update."""
        began = time.perf_counter()
        with gathered(self.policy):
            scores = score(self.rewards, batch, self.policy)
            rewarded = time.perf_counter()
            old = self._old_logprobs(batch)
        scores, old = exchange(batch, scores, old)
        advantages = group_advantages(scores.total, batch.group_size, self.scale_rewards)
        figures = UpdateFigures()
        minibatches = [m for iteration in range(self.num_iterations) for m in self._minibatches(batch, iteration)]
        for number, rows in enumerate(minibatches, start=1):
            self._optimizer_step(batch, rows, advantages, old, figures, last=number == len(minibatches))
        figures = UpdateFigures.merged(everyone(figures))
        ended = time.perf_counter()
        self.tokens_seen += sum(len(r.prompt_ids) + len(r.completion.ids) for r in batch.rollouts)
        self.log_dict({
            **rollout_figures(batch, scores, self.scale_rewards), **scores.figures, **figures.means(),
            "num_tokens": float(self.tokens_seen), "lr": self._torch_optimizer().param_groups[0]["lr"],
            "step_time": batch.seconds + ended - began, "time/rollout": batch.seconds,
            "time/reward": rewarded - began, "time/update": ended - rewarded,
        })  # fmt: skip

    def logprobs(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Log-probabilities `[B, C]` of the completions' tokens under the policy, and the mean entropy in nats."""
        logits = logits_at(
            self.policy.model, sequences.before, input_ids=sequences.input_ids, use_cache=False,
            attention_mask=sequences.attention_mask, position_ids=positions(sequences.attention_mask),
        )  # fmt: skip
        chosen = token_logprobs(logits, sequences.tokens, self.temperature)
        with torch.no_grad():
            spread = (logits.float() / self.temperature).log_softmax(-1)
            entropy = -(spread.exp() * spread).sum(-1).mean()
        empty = chosen.new_zeros(sequences.completion.shape)
        return empty.masked_scatter(sequences.completion, chosen), entropy

    def validation_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score held-out problems."""
        self._evaluate(batch, "val/")

    def test_step(self, batch: RolloutBatch, batch_idx: int) -> None:
        """Score test problems."""
        self._evaluate(batch, "test/")

    def predict_step(self, batch: RolloutBatch, batch_idx: int) -> list[Rollout]:
        """Rollouts with all their rewards."""
        score(self.rewards, batch, self.policy)
        return batch.rollouts

    def on_validation_epoch_end(self) -> None:
        """Log the means and pass@k."""
        self._log_evaluation("val/")

    def on_test_epoch_end(self) -> None:
        """Log the means and pass@k."""
        self._log_evaluation("test/")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the count of tokens."""
        checkpoint["tokens_seen"] = self.tokens_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting tokens."""
        self.tokens_seen = checkpoint["tokens_seen"]
        if "state_dict" in checkpoint:  # which FSDP2 has loaded and compared already
            check_same(checkpoint["state_dict"], self.state_dict(), self.policy.path)

    def _evaluate(self, batch: RolloutBatch, prefix: str) -> None:
        rewards = {n: r for n, r in self.rewards.items() if self.evaluate_all_rewards or not r.uses_policy}
        scores = score(rewards, batch, self.policy)
        for name, values in scores.values.items():
            known = int((~values.isnan()).sum())
            self.evaluated.append(({f"{prefix}rewards/{name}/mean": float(values.nanmean())}, known))
        figures = scores.figures | {
            "tokens_per_cot": sum(r.parts.cot_length for r in batch.rollouts) / len(batch),
            "finished": sum(r.completion.finished for r in batch.rollouts) / len(batch),
        }
        self.evaluated.append(({prefix + name: value for name, value in figures.items()}, len(batch)))
        assert self.pass_at_k is not None
        self.pass_at_k.update(torch.tensor([bool(r.right) for r in batch.rollouts]).view(-1, batch.group_size))

    def _log_evaluation(self, prefix: str) -> None:
        """Log means over all processes; a figure that is undefined everywhere (nothing solved, say) is left out."""
        means = weighted_means(part for theirs in everyone(self.evaluated) for part in theirs)
        self.log_dict({name: value for name, value in means.items() if not math.isnan(value)})
        self.evaluated = []
        assert self.pass_at_k is not None
        self.log_dict({prefix + name: value for name, value in self.pass_at_k.compute().items()})
        self.pass_at_k.reset()

    def _old_logprobs(self, batch: RolloutBatch) -> list[Tensor]:
        """Each rollout's log-probabilities under the policy that sampled it."""
        rescore = self.policy.dtype_name in ("bfloat16", "float16") if self.rescore is None else self.rescore
        old = [torch.tensor(r.completion.logprobs) for r in batch.rollouts]
        if rescore:
            with torch.no_grad():
                for rows in self._micro_batches(batch, range(len(batch))):
                    scored, _ = self.logprobs(batch.sequences(rows, self.policy.pad_id, self.device))
                    for k, i in enumerate(rows):
                        old[i] = scored[k, : len(old[i])].cpu()
        return old

    def _minibatches(self, batch: RolloutBatch, iteration: int) -> Iterator[list[int]]:
        """Rows of the rollouts of `minibatch_queries` whole groups, in an order drawn for this update and pass."""
        size = batch.group_size
        seed = (self.seed * 1_000_003 + self.trainer.global_step) * 1_009 + iteration
        order = torch.randperm(len(batch) // size, generator=torch.Generator().manual_seed(seed)).tolist()
        queries = self.minibatch_queries * processes().count
        for start in range(0, len(order), queries):
            yield [q * size + g for q in order[start : start + queries] for g in range(size)]

    def _micro_batches(self, batch: RolloutBatch, rows: list[int] | range) -> Iterator[list[int]]:
        for part in length_batches([_length(batch.rollouts[i]) for i in rows], self.micro_batch_tokens):
            yield [rows[k] for k in part]

    def _optimizer_step(
        self, batch: RolloutBatch, rows: list[int], advantages: Tensor, old: list[Tensor], figures: UpdateFigures,
        last: bool,
    ) -> None:  # fmt: skip
        optimizer = self._torch_optimizer()
        optimizer.zero_grad()
        tokens = sum(len(batch.rollouts[i].completion.ids) for i in rows)
        # gradients are averaged over the processes, so each divides by the mean of their counts
        divide_by = normalizer(self.loss_type, len(rows), tokens, self.max_new_tokens) / processes().count
        lengths = [_length(batch.rollouts[i]) for i in rows]
        parts = deal(rows, lengths, self.micro_batch_tokens, processes())
        shortest = rows[lengths.index(min(lengths))]
        for k, part in enumerate(parts, start=1):
            sequences = batch.sequences(part or [shortest], self.policy.pad_id, self.device)
            logprobs, entropy = self.logprobs(sequences)
            if not part:  # nothing left to learn from here, but the others need this process's slices
                with reducing(self.trainer, last=k == len(parts)):
                    self.manual_backward(logprobs.sum() * 0)
                continue
            before = torch.nn.utils.rnn.pad_sequence([old[i] for i in part], batch_first=True).to(self.device)
            result: Objective = clipped_objective(
                logprobs, before, advantages[part].to(self.device), sequences.completion, divide_by, self.epsilon,
                self.epsilon_high, self.loss_type, self.level,
            )  # fmt: skip
            with reducing(self.trainer, last=k == len(parts)):
                self.manual_backward(result.loss)
            figures.add(result, sequences.completion, entropy)
        figures.add_step(clip_gradients(self.policy.parameters(), self.max_grad_norm))
        if last:
            # the one step of an update that Lightning counts, so that global_step counts updates
            self._lightning_optimizer().step()
        else:
            self.trainer.strategy.optimizer_step(optimizer, lambda: None, self)

    def _lightning_optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _torch_optimizer(self) -> torch.optim.Optimizer:
        return self._lightning_optimizer().optimizer


def _length(rollout: Rollout) -> int:
    return len(rollout.prompt_ids) + len(rollout.completion.ids)
