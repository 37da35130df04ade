"""Step `update`: a whole update of a 3B-shaped Llama by phase, memory by part, both against `atmanrl plan`.

The policy samples 64 completions of 250 tokens; random weights would never write a delimiter, so before rewards are given
random reasonings with a delimiter and an answer take their place. Everything else is `atmanrl fit` with the paper's
settings: float32 weights, bf16-mixed, two passes, AdamW, the adaptive solver, decoding captured
as a CUDA graph.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, Trainer

from atmanrl.distributed import FSDP2Strategy
from atmanrl.grpo import GRPOModule
from atmanrl.models.policy import Policy
from atmanrl.plan.estimate import plan
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import shape_of
from atmanrl.probe import AdaptiveSolver, MaskProbe
from atmanrl.rewards import OutcomeReward, SaliencyReward
from atmanrl.rollouts import Completion, RolloutBatch, RolloutDataModule, split
from atmanrl.tasks import DELIMITER, WordProblems
from experiments.gpu.probe import TOLERANCE
from experiments.gpu.record import Record
from experiments.gpu.scene import Scene, parameter_bytes, random_policy, ratio, tokens

PASSES, MINIBATCH, UPDATE_TOKENS, PROBE_TOKENS = 2, 2, 2048, 4096
UPDATES = 2
"""The first one warms up."""


class Rollouts(RolloutDataModule):
    """Samples as ever, for prompts of the scene's length, and puts reasonings in the completions' place."""

    def __init__(self, scene: Scene, peaks: dict[str, int]) -> None:
        self.scene, self.peaks = scene, peaks
        task = WordProblems(train_size=(UPDATES + 1) * scene.queries + 1, test_size=1, instruction="")
        super().__init__(
            task, queries_per_device=scene.queries, group_size=scene.group, max_new_tokens=scene.completion, val_problems=1
        )  # fmt: skip

    def answer(self, policy: Policy, problems: Sequence[Any], *args: Any) -> RolloutBatch:
        """Rollouts of some problems."""
        self.scene.fresh_peak()
        prompts, encode = iter(self.scene.prompts()), policy.encode_prompt
        policy.encode_prompt = lambda text: next(prompts)  # type: ignore[method-assign]
        try:
            batch = super().answer(policy, problems, *args)
        finally:
            policy.encode_prompt = encode  # type: ignore[method-assign]
        self.peaks["sampling"] = self.scene.peak()
        for number, rollout in enumerate(batch.rollouts):
            self._give(policy, rollout, number)
        return batch

    def _give(self, policy: Policy, rollout: Any, number: int) -> None:
        ending = policy.tokenizer(f"{DELIMITER} {rollout.problem.gold}", add_special_tokens=False).input_ids
        ids = [*tokens(self.scene.completion - len(ending), number), *ending]
        rollout.completion = Completion(ids, rollout.completion.logprobs, True)
        rollout.parts = split(policy.tokenizer, ids)
        rollout.correct = number % 2 == 0


class Probed(SaliencyReward):
    """The saliency reward, with a note of its memory."""

    def __init__(self, scene: Scene, peaks: dict[str, int], probe: MaskProbe) -> None:
        super().__init__(1.0, probe)
        self.scene, self.peaks = scene, peaks

    def __call__(self, batch: RolloutBatch, policy: Policy) -> Any:
        """Probe a batch."""
        self.scene.fresh_peak()
        reward = super().__call__(batch, policy)
        self.peaks["probing"] = self.scene.peak()
        self.scene.fresh_peak()
        return reward


class Watch(Callback):
    """Writes an update's figures into the record."""

    def __init__(self, scene: Scene, peaks: dict[str, int], record: Record) -> None:
        self.scene, self.peaks, self.record = scene, peaks, record
        self.phases: dict[str, float] = {}

    def on_train_batch_end(self, trainer: Trainer, module: Any, *args: Any) -> None:
        """Phases, memory."""
        self.peaks["update"] = self.scene.peak()
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        names = {"sampling": "time/rollout", "probing": "time/reward", "update": "time/update"}
        self.phases = {phase: logged[name] for phase, name in names.items()}
        about = {
            "loss": logged["loss"],
            "saliency": logged["rewards/saliency/mean"],
            "gradients": logged["probe/gradients"],
            "grad_norm": logged.get("grad_norm"),
        }
        self.record.put(f"update {trainer.global_step}", self.phases | {"step": logged["step_time"]} | about)


def measure(args: argparse.Namespace, record: Record) -> None:
    """Some updates, the last of which counts."""
    fit(Scene.of(args.device, args.tiny, args.tflops, args.terabytes), record)


def fit(scene: Scene, record: Record) -> None:
    """Some updates of a scene's model."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    peaks: dict[str, int] = {}
    solver = _solver(scene)
    with (
        random_policy(scene, "float32") as policy,
        tempfile.TemporaryDirectory() as folder,
    ):
        shape = shape_of(policy.model.config)
        watch = Watch(scene, peaks, record)
        probed = Probed(scene, peaks, MaskProbe(solver=solver, batch_tokens=PROBE_TOKENS))
        module = GRPOModule(
            policy, {"outcome": OutcomeReward(), "saliency": probed}, num_iterations=PASSES, minibatch_queries=MINIBATCH,
            micro_batch_tokens=UPDATE_TOKENS, rescore=True,
        )  # fmt: skip
        trainer = Trainer(
            accelerator="gpu" if scene.cuda else "cpu", devices=[scene.device.index or 0] if scene.cuda else 1,
            precision="bf16-mixed", strategy=FSDP2Strategy(), max_steps=UPDATES,
            limit_val_batches=0, logger=False, callbacks=[watch], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        with record.guarded("fit"):
            trainer.fit(module, datamodule=Rollouts(scene, peaks))
        if watch.phases:
            with record.guarded("against the plan") as found:
                found |= _against_plan(scene, shape, watch.phases, peaks, _resident(policy, trainer))


def _solver(scene: Scene) -> AdaptiveSolver:
    return AdaptiveSolver(steps=10) if scene.tiny else AdaptiveSolver(tolerance=TOLERANCE)


def _resident(policy: Policy, trainer: Trainer) -> dict[str, int]:
    """Bytes that stand there between updates."""
    states = [state for optimizer in trainer.optimizers for state in optimizer.state.values()]
    moments = [value for state in states for value in state.values() if isinstance(value, torch.Tensor) and value.ndim]
    return {"weights": parameter_bytes(policy.model), "optimizer": sum(value.nbytes for value in moments)}


def _against_plan(
    scene: Scene, shape: Any, phases: dict[str, float], peaks: dict[str, int], resident: dict[str, int]
) -> dict[str, Any]:
    solver = _solver(scene)
    probe = ProbeSettings(solver.expected_gradients() + 1, PROBE_TOKENS, solver.mask_copies)
    settings = RunSettings(
        "random", compute_bytes=2, queries=scene.queries, group=scene.group, max_new_tokens=scene.completion,
        num_iterations=PASSES, minibatch_queries=MINIBATCH, micro_batch_tokens=UPDATE_TOKENS, rescore=True, probes=(probe,),
    )  # fmt: skip
    planned = plan(shape, settings, scene.hardware, scene.lengths)
    gib = 2.0**30
    return {
        **{f"{phase}_s": ratio(planned.seconds_by_phase[phase], seconds) for phase, seconds in phases.items()},
        **{f"{part}_gib": ratio(planned.memory_by_part[part] / gib, size / gib) for part, size in resident.items()},
        **{f"peak_of_{p}_gib": ratio(planned.peak_by_phase[p] / gib, peaks.get(p, 0) / gib) for p in phases},
    }
