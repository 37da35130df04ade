"""`eval/*.json`: the figures of every evaluation, with what they depend on."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from atmanrl.callbacks.composition import CompositionCallback
from atmanrl.files import atomic_write
from atmanrl.metrics.at_k import MeanAtK
from atmanrl.metrics.majority import MajorityAtK, answer_classes
from atmanrl.metrics.pass_at_k import PassAtK
from atmanrl.policy import Policy
from atmanrl.rollouts import RolloutBatch, RolloutDataModule
from atmanrl.tasks.mixture import by_task


class EvaluationReport(Callback):
    """Writes `eval/validation_00060.json` during training, `eval/validate.json` and `eval/test.json` by the commands.

    It also takes the vote of each problem's samples: `majority_at_4`, where pass@k asks whether any of them is right.
    Of a mixture it logs pass@k of each task, too: `math/pass_at_1`.
    """

    def __init__(self) -> None:
        self.majority: MajorityAtK | None = None
        self.passed: dict[str, PassAtK] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All samples of a problem vote."""
        data = getattr(trainer, "datamodule", None)
        self.majority, self.passed = None, {}
        if isinstance(data, RolloutDataModule) and data.task is not None:
            self.majority = MajorityAtK((data.eval_samples,))
            self.passed = {name: PassAtK(sorted({1, data.eval_samples})) for name in by_task(data.task, [])}

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Count the votes."""
        if self.majority is None or not isinstance(batch, RolloutBatch):
            return
        task = trainer.datamodule.task  # type: ignore[attr-defined]
        size = batch.group_size
        groups = [batch.rollouts[start : start + size] for start in range(0, len(batch), size)]
        for name, mine in by_task(task, [group[0].problem for group in groups]).items():
            right = torch.tensor([[bool(r.right) for r in groups[i]] for i in mine], dtype=torch.bool)
            self.passed[name].to(pl_module.device).update(right.view(len(mine), size))
        # on the device of the process group, where the sums of several processes meet
        self.majority.to(pl_module.device).update(
            [answer_classes(task, group[0].problem, [r.parts.answer for r in group]) for group in groups]
        )

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures on held-out training problems."""
        self._log(pl_module, "val/")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the figures on test problems."""
        self._log(pl_module, "test/")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures on held-out training problems."""
        if not trainer.sanity_checking:
            self._write(trainer, pl_module, "val/", evaluation_name(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures on test problems."""
        self._write(trainer, pl_module, "test/", "test")

    def _log(self, pl_module: LightningModule, prefix: str) -> None:
        metrics: dict[str, MeanAtK] = {f"{prefix}{name}/": passed for name, passed in self.passed.items()}
        if self.majority is not None:
            metrics[prefix] = self.majority
        for place, metric in metrics.items():
            if metric.update_called:
                pl_module.log_dict({place + name: value for name, value in metric.compute().items()})
                metric.reset()

    def _write(self, trainer: Trainer, pl_module: LightningModule, prefix: str, name: str) -> None:
        figures = {
            key.removeprefix(prefix): None if math.isnan(value) else float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith(prefix)
        }
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or not figures or not isinstance(data, RolloutDataModule):
            return
        path = Path(trainer.default_root_dir) / "eval" / f"{name}.json"
        with atomic_write(path) as file:
            file.write(json.dumps({**figures, "setting": self._setting(trainer, pl_module, data)}, indent=2) + "\n")

    def _setting(self, trainer: Trainer, pl_module: LightningModule, data: RolloutDataModule) -> dict[str, object]:
        tagger = next((c.pipeline for c in trainer.callbacks if isinstance(c, CompositionCallback)), None)  # type: ignore[attr-defined]
        policy = getattr(pl_module, "policy", None)
        return {
            "update": trainer.global_step,
            "policy": policy.path if isinstance(policy, Policy) else None,
            "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
            "task": type(data.task).__name__,
            "samples": data.eval_samples,
            **asdict(data.sampling),
            **data.splitter.noted,
            "seed": data.seed,
            "tagger": tagger or "lexical rules",
            "versions": {name: version(name) for name in ("atmanrl", "torch", "transformers", "lightning", "spacy")},
        }


def evaluation_name(trainer: Trainer) -> str:
    """What a validation's files are called: by update during training, `validate` as a command of its own."""
    return f"validation_{trainer.global_step:05d}" if trainer.state.fn == "fit" else "validate"
