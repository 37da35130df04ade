"""What of a run's configuration memory and time depend on."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from atmanrl.errors import UserError
from atmanrl.models.policy import LoRA
from atmanrl.models.precision import check_precision

WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
PROBLEMS = {"GSM8K": 7473, "MMLU": 1816}
"""Training problems of tasks that are read from elsewhere."""
ADAPTIVE_SHARE = 6.0
"""AdaptiveSolver takes about a sixth of the steps as gradients, at its default tolerance."""


@dataclass(frozen=True)
class ProbeSettings:
    """The saliency reward's probe: see `probe.MaskProbe`."""

    solver: str = "PaperSolver"
    gradients: float = 201.0
    batch_tokens: int = 1024
    attention: str = "auto"


@dataclass(frozen=True)
class RunSettings:
    """A training run.

    Attributes:
        path: of the policy.
        revision: of the policy on the hub.
        trust_remote_code: see `policy.Policy`.
        lora: adapters, or None.
        weight_bytes: of a weight as it is kept.
        compute_bytes: of a number in a matrix product.
        sharded: whether weights, gradients and optimizer are in slices over the devices (FSDP2).
        checkpointing: activation checkpointing.
        moments: tensors that the optimizer keeps for each weight.
        reference: whether a reference model is kept (KL).
        reinforcement: rollouts and GRPO; False for the supervised warm start.
        probe: None without a saliency reward.
        queries: of an update on each device; examples of a step in the warm start.
        group: rollouts of a query; 1 in the warm start.
        max_new_tokens: longest completion.
        static_cache: whether the sampler's cache is preallocated.
        num_iterations: passes over an update's rollouts.
        minibatch_queries: of one optimizer step on each device.
        micro_batch_tokens: of one forward pass of the update.
        rescore: whether the old log-probabilities are computed again.
        max_steps: updates, or -1.
        max_epochs: over the training problems, or -1.
        problems: to train on, None if not known.
        val_every: updates between evaluations, or None.
        val_problems: of an evaluation.
        eval_samples: of each of them.
        eval_queries: answered at once.
        notes: what of the configuration is not in the figures.
    """

    path: str
    revision: str | None = None
    trust_remote_code: bool = False
    lora: LoRA | None = None
    weight_bytes: int = 4
    compute_bytes: int = 4
    sharded: bool = False
    checkpointing: bool = False
    moments: int = 2
    reference: bool = False
    reinforcement: bool = True
    probe: ProbeSettings | None = None
    queries: int = 8
    group: int = 8
    max_new_tokens: int = 1024
    static_cache: bool = False
    num_iterations: int = 2
    minibatch_queries: int = 2
    micro_batch_tokens: int = 16384
    rescore: bool = False
    max_steps: int = -1
    max_epochs: int = -1
    problems: int | None = None
    val_every: int | None = None
    val_problems: int = 0
    eval_samples: int = 1
    eval_queries: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def minibatches(self) -> int:
        """Optimizer steps of a pass over an update's rollouts."""
        return math.ceil(self.queries / self.minibatch_queries)

    @property
    def rollouts(self) -> int:
        """Of an update on each device."""
        return self.queries * self.group


def from_config(config: dict[str, Any]) -> RunSettings:
    """The settings of a whole `fit` configuration, every default filled in.

    Raises:
        UserError: the model is of a kind that is not planned.
    """
    model, data = options(config.get("model")), options(config.get("data"))
    kind = class_name(config.get("model"))
    if kind not in ("GRPOModule", "SFTModule"):
        raise UserError(f"the config's model is {kind or 'missing'}; plans are made for GRPOModule and SFTModule.")
    trainer, policy = config["trainer"], options(model["policy"])
    precision = check_precision(trainer.get("precision"), policy["dtype"], policy.get("lora") is None)
    weight = WIDTHS[policy["dtype"]]
    notes: list[str] = []
    common = {
        "path": policy["path"], "revision": policy["revision"], "trust_remote_code": policy["trust_remote_code"],
        "lora": _lora(policy.get("lora")), "weight_bytes": weight,
        "compute_bytes": 2 if precision.endswith("-mixed") else weight,
        "sharded": "fsdp" in class_name(trainer.get("strategy")).lower(), "notes": notes,
        "checkpointing": bool(policy.get("activation_checkpointing", False)),
        "max_steps": trainer["max_steps"] if trainer["max_steps"] is not None else -1,
        "max_epochs": _max_epochs(trainer),
        "problems": _problems(data.get("task"), data.get("val_problems", 0)),
        "val_problems": data.get("val_problems", 0),
    }  # fmt: skip
    if kind == "SFTModule":
        return RunSettings(
            **common, reinforcement=False, queries=data["batch_size"], group=1, num_iterations=1,
            minibatch_queries=data["batch_size"], micro_batch_tokens=1 << 60,
        )  # fmt: skip
    every = trainer.get("val_check_interval")
    if data.get("resample_zero_spread"):
        notes.append("data.resample_zero_spread samples some groups more than once")
    return RunSettings(
        **common, moments=_moments(model.get("optimizer"), notes), reference=_reference(model.get("loss"), notes),
        probe=_probe(model.get("rewards") or {}, notes), queries=data["queries_per_device"], group=data["group_size"],
        max_new_tokens=data["max_new_tokens"], static_cache=_static_cache(data.get("sampler"), notes),
        num_iterations=model["num_iterations"],
        micro_batch_tokens=model["micro_batch_tokens"], minibatch_queries=model["minibatch_queries"],
        rescore=common["compute_bytes"] < 4 if model.get("rescore") is None else model["rescore"],
        val_every=every if isinstance(every, int) and not isinstance(every, bool) else None,
        eval_samples=data["eval_samples"], eval_queries=data["eval_queries"],
    )  # fmt: skip


def options(node: Any) -> dict[str, Any]:
    """Options of a class in a configuration, whether it is named or not."""
    if not isinstance(node, dict):
        return {}
    found: dict[str, Any] = node.get("init_args", node)
    return found


def class_name(node: Any) -> str:
    """Name of a class in a configuration, without its module."""
    path = node.get("class_path", "") if isinstance(node, dict) else node or ""
    return str(path).rsplit(".", 1)[-1]


def _max_epochs(trainer: dict[str, Any]) -> int:
    """Lightning's: 1000 where nothing else ends a run."""
    if trainer["max_epochs"] is not None:
        return int(trainer["max_epochs"])
    return 1000 if trainer["max_steps"] in (None, -1) and trainer.get("max_time") is None else -1


def _lora(node: Any) -> LoRA | None:
    if node is None:
        return None
    names = {field.name for field in dataclasses.fields(LoRA)}
    return LoRA(**{name: value for name, value in options(node).items() if name in names})


def _moments(optimizer: Any, notes: list[str]) -> int:
    name = class_name(optimizer) or "AdamW"
    if name in ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "paper_optimizer"):
        return 2
    if name == "SGD":
        return 1 if options(optimizer).get("momentum") else 0
    notes.append(f"the optimizer {name} is counted as AdamW, with two moments a weight")
    return 2


def _reference(loss: Any, notes: list[str]) -> bool:
    """Whether the loss keeps the policy that the run starts from."""
    name = class_name(loss) or "ClippedLoss"
    if name != "ClippedLoss":
        notes.append(f"the loss {name} is planned without a reference model")
        return False
    return bool(options(loss).get("beta"))


def _static_cache(sampler: Any, notes: list[str]) -> bool:
    name = class_name(sampler) or "HFSampler"
    if name != "HFSampler":
        notes.append(f"the sampler {name} is planned as HFSampler, which runs the policy itself")
        return False
    # `auto` is dynamic where a model permits nothing else, and then takes less
    return options(sampler).get("cache", "dynamic") != "dynamic"


def _probe(rewards: dict[str, Any], notes: list[str]) -> ProbeSettings | None:
    saliency = [reward for reward in rewards.values() if class_name(reward) == "SaliencyReward"]
    if not saliency:
        return None
    given = options(options(saliency[0]).get("probe"))
    if given.get("attribution") is not None:
        notes.append("the probe's attribution is not planned: its time is that of the paper's mask")
    solver = given.get("solver", "paper")
    name = {"paper": "PaperSolver", "adaptive": "AdaptiveSolver"}.get(solver if isinstance(solver, str) else "", "")
    name = name or class_name(solver)
    steps = options(solver).get("steps", 200)
    if name not in ("PaperSolver", "AdaptiveSolver"):
        notes.append(f"the solver {name} is planned with a gradient for every step, as PaperSolver")
    gradients = steps / ADAPTIVE_SHARE if name == "AdaptiveSolver" else steps
    # the last one has no gradient, and is counted as one
    return ProbeSettings(name, gradients + 1, given.get("batch_tokens", 1024), given.get("attention", "auto"))


def _problems(task: Any, held_out: int) -> int | None:
    given = options(task)
    size = given.get("train_size") or PROBLEMS.get(class_name(task))
    return None if size is None else int(size) - held_out
