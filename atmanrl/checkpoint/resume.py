"""Options that have changed since a checkpoint was written: they count from now on, or are refused, but never in silence."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import LightningModule, Trainer
from torch.optim.lr_scheduler import LambdaLR

from atmanrl.checkpoint.base_model import digest_of
from atmanrl.checkpoint.reading import CheckpointError
from atmanrl.notes import say

APPLIED = (
    "lr", "weight_decay", "betas", "eps", "dampening", "nesterov", "maximize", "alpha", "rho", "lr_decay",
    "decoupled_weight_decay", "momentum_decay",
)  # fmt: skip
"""Options of an optimizer that can change on the way: no part of its state depends on them."""
SAME_RESULT = ("foreach", "fused", "capturable", "differentiable", "initial_lr", "params")
"""What else an optimizer's groups hold: how it computes, and not what."""
OF_THE_OPTIMIZER = ("base_lrs", "_last_lr", "lr_lambdas")
"""What a schedule's state holds of its optimizer, whose own options are compared."""


class Resumption:
    """Compares the options of a run with those of the run that wrote its checkpoint.

    A checkpoint also holds an optimizer's and a schedule's options, by which PyTorch replaces those that were just given;
    the order of problems is counted in updates of a fixed size; the random state goes on whatever the seed. So the options
    are written into every checkpoint as they were before any state was loaded.

    Attributes:
        asked: options of this run: of optimizers, of schedules, of the order of problems, and a digest of the weights that
            it began with.
        before: the same of the checkpoint's run; empty without a checkpoint.
    """

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.before: dict[str, Any] = {}
        self._start = ""
        self._callbacks: list[tuple[Any, dict[str, Any]]] = []

    def note_callbacks(self, trainer: Trainer) -> None:
        """Keep the options of callbacks, before their states are loaded."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            names = inspect.signature(type(callback).__init__).parameters
            options = {
                n: v for n, v in vars(callback).items() if n in names and isinstance(v, bool | int | float | str)
            }
            self._callbacks.append((callback, options))

    def check_start(self, path: object, checkpoint: dict[str, Any], module: LightningModule) -> None:
        """Refuse a checkpoint of a run that began with other weights, which a checkpoint's would hide.

        Raises:
            CheckpointError: the config's policy is not the one that the run began with.
        """
        self._start = digest_of(getattr(module, "policy", None))
        before = (checkpoint.get("asked") or {}).get("start")
        if before and self._start and before != self._start:
            raise CheckpointError(
                f"{path} is of a run that began with other weights than those of {module.policy.path!r}: name the model "  # type: ignore[union-attr]
                "that it began with (--model.policy.path), or begin another run."
            )

    def note_asked(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep this run's options, before the states of optimizers and schedules are loaded."""
        order = getattr(trainer.datamodule, "order_options", dict)  # type: ignore[attr-defined]
        self.asked = {
            "optimizers": [_of_optimizer(optimizer) for optimizer in trainer.optimizers],
            "schedules": [_of_schedule(config.scheduler) for config in trainer.lr_scheduler_configs],
            "order": {**order(), "seed_everything": os.environ.get("PL_GLOBAL_SEED")},
            "start": self._start or digest_of(getattr(module, "policy", None)),
        }
        self.check()

    def note_before(self, checkpoint: dict[str, Any]) -> None:
        """Keep the options of the checkpoint's run."""
        self.before = checkpoint.get("asked") or {}
        self.check()

    def check(self) -> None:
        """Refuse what cannot change on the way, as soon as both sides are known.

        Raises:
            CheckpointError: it names the option.
        """
        if not self.before or not self.asked:
            return
        for name, now in self.asked["order"].items():
            was = self.before["order"].get(name, now)
            if was != now:
                what = "The random state goes on from the checkpoint" if name == "seed_everything" else (
                    "Problems would be passed over, or asked twice"
                )  # fmt: skip
                raise CheckpointError(f"{name} {_change(was, now)}. {what}: give the old value, or begin another run.")
        self._check_kinds("model.optimizer", "optimizers")
        self._check_kinds("model.lr_scheduler", "schedules")
        for was, now in zip(self.before["schedules"], self.asked["schedules"], strict=True):
            for name in was["options"].keys() | now["options"].keys():
                self._refuse(f"model.lr_scheduler.{name}", was["options"].get(name), now["options"].get(name))
        scheduled = [s["class"] for s in self.asked["schedules"] if not s["closed"]]
        for name, was, now in self._changes():
            sgd = self.asked["optimizers"][0]["class"] == "SGD" and name == "momentum"
            if (name not in APPLIED and not sgd) or (name == "lr" and scheduled):
                self._refuse(f"model.optimizer.{name}", was, now)

    def apply(self, trainer: Trainer) -> None:
        """Replace what was loaded from the checkpoint by this run's options, and say so."""
        for callback, options in self._callbacks:
            for name, now in options.items():
                if getattr(callback, name, now) != now:
                    was = getattr(callback, name)
                    setattr(callback, name, now)
                    say(f"{type(callback).__name__}.{name} {_change(was, now)}: what is given now counts.")
        if not self.before:
            return
        for name, was, now in self._changes():
            then = f"what is given now counts from update {trainer.global_step + 1} on"
            say(f"model.optimizer.{name} {_change(was, now)}: {then}.")
        for optimizer, asked in zip(trainer.optimizers, self.asked["optimizers"], strict=True):
            for group, options in zip(optimizer.param_groups, asked["groups"], strict=True):
                scheduled = "initial_lr" in group
                group.update({k: v for k, v in options.items() if k != "lr" or not scheduled})
                if scheduled:
                    group["initial_lr"] = options["lr"]
        for config in trainer.lr_scheduler_configs:
            schedule = config.scheduler
            if isinstance(schedule, LambdaLR):  # whose value depends on nothing but the count of updates
                schedule.base_lrs = [group["initial_lr"] for group in schedule.optimizer.param_groups]
                lrs = [b * f(schedule.last_epoch) for b, f in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
                for group, lr in zip(schedule.optimizer.param_groups, lrs, strict=True):
                    group["lr"] = lr
                schedule._last_lr = lrs

    def _changes(self) -> list[tuple[str, Any, Any]]:
        """Return options of optimizers that have changed: name, before, now."""
        pairs = zip(self.before["optimizers"], self.asked["optimizers"], strict=True)
        groups = [pair for was, now in pairs for pair in zip(was["groups"], now["groups"], strict=True)]
        changes = [
            (name, was.get(name), now.get(name))
            for was, now in groups
            for name in sorted(was.keys() | now.keys())
            if was.get(name) != now.get(name)
        ]
        return list({repr(change): change for change in changes}.values())

    def _check_kinds(self, option: str, key: str) -> None:
        was, now = ([(part["class"], part.get("size")) for part in side[key]] for side in (self.before, self.asked))
        if was != now:
            first, second = (", ".join(name for name, _ in side) or "none" for side in (was, now))
            self._refuse(option, first, second)

    def _refuse(self, name: str, was: Any, now: Any) -> None:
        if was != now:
            raise CheckpointError(
                f"{name} {_change(was, now)}, and cannot change on the way: give the old value, or begin another run from "
                "the trained policy (--model.policy.path=RUN/policy)."
            )


def note_changes(folder: Path, update: int, before: str, now: str) -> None:
    """Add a line to `resumed.jsonl` in a run's folder if its config has changed: after which update, and what.

    Args:
        folder: of the run.
        update: the last one of the old config.
        before: the old `config.yaml`.
        now: the new one, which takes its place.
    """
    old, new = flat(yaml.safe_load(before)), flat(yaml.safe_load(now))
    changed = {
        name: [old.get(name), new.get(name)]
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name != "ckpt_path"
    }
    if changed:
        with (folder / "resumed.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"after_update": update, "changed": changed}) + "\n")


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Return options by their full names, such as `data.init_args.seed`."""
    if not isinstance(options, dict) or not options:
        return {prefix: options}
    return {n: v for key, value in options.items() for n, v in flat(value, f"{prefix}.{key}".lstrip(".")).items()}


def _change(was: Any, now: Any) -> str:
    return f"is {now!r} and was {was!r} in the checkpoint's run"


def _of_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    groups = []
    for group in optimizer.param_groups:
        options = {name: plain(value) for name, value in group.items() if name not in SAME_RESULT}
        groups.append(options | {"lr": plain(group.get("initial_lr", group["lr"]))})
    return {"class": type(optimizer).__name__, "groups": groups, "size": len(groups)}


def _of_schedule(schedule: Any) -> dict[str, Any]:
    closed = isinstance(schedule, LambdaLR)
    state = {} if closed else schedule.state_dict()
    options = {name: plain(value) for name, value in state.items() if name not in OF_THE_OPTIMIZER}
    return {"class": type(schedule).__name__, "options": options, "closed": closed}


def plain(value: Any) -> Any:
    """Return a value as nothing but plain containers, numbers and texts, so that a checkpoint may hold it."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items() if name not in OF_THE_OPTIMIZER}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__
