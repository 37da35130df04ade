"""The top of a run's options: which there are, and what takes them."""

from __future__ import annotations

from atmanrl.commands.options.declared import MODULES, declared
from atmanrl.commands.options.signatures import Kind, Signature, options_of, signature
from atmanrl.commands.options.typed import Node

TRAINER = "lightning.pytorch.trainer.trainer.Trainer"
OBJECTS = {"trainer": TRAINER, **{
    "checkpoint": "atmanrl.callbacks.checkpoint.RunCheckpoint",
    "rollout_log": "atmanrl.callbacks.rollout_log.RolloutLog",
    "rollout_table": "atmanrl.callbacks.rollout_table.RolloutTable",
    "export": "atmanrl.callbacks.export.PolicyExport",
}}  # fmt: skip
"""Sections whose class is fixed."""
DEFAULTS = {"model": "GRPOModule", "data": "RolloutDataModule"}
"""What `model` and `data` are where nobody says."""
DATA_OF = {"SFTModule": "SFTDataModule"}
"""What `data` is by default for another model."""
BASES = {"model": "lightning.LightningModule", "data": "lightning.LightningDataModule"}
METRICS = {
    "tokens_per_cot": {"class_path": "CotLength"},
    "composition": {"class_path": "TokenComposition"},
    "pass_at_k": {"class_path": "PassAtK"},
    "majority_at_k": {"class_path": "MajorityAtK"},
    "finished": {"class_path": "Finished"},
}
"""What every run measures, in the order of Table 1."""
OTHERS = ("seed_everything", "config", "print_config", "help", "help_all")


def kinds(command: str) -> dict[str, Kind]:
    """Return what may stand at the top of a command's options."""
    if command in MODULES:
        return declared(command).kinds
    metric = Kind(scalars=("None",), classes=("atmanrl.metrics.base.RolloutMetric",))
    of_command = [name for name in options_of(TRAINER, command) if name not in _NOT_OPTIONS]
    return {
        **{name: Kind(classes=(base,)) for name, base in BASES.items()},
        **{name: Kind(classes=(path,)) for name, path in OBJECTS.items()},
        "metrics": Kind(values=metric),
        **{name: Kind(known=False) for name in (*OTHERS, *of_command)},
    }


def defaults_of(root: Node) -> dict[str, str]:
    """Return the classes of `model` and `data` that a command leaves to their defaults."""
    model = root.at("model")
    named = model.class_path if model is not None and model.class_path else DEFAULTS["model"]
    classes = {"model": DEFAULTS["model"], "data": DATA_OF.get(named.rpartition(".")[2], DEFAULTS["data"])}
    return {name: path for name, path in classes.items() if (node := root.at(name)) is None or not node.class_path}


def fill_in(root: Node) -> None:
    """Name the classes of `model`, `data` and the metrics where a run's options leave them to their defaults."""
    for name, metric in METRICS.items():
        _name(root, ("metrics", name), metric["class_path"])
    for name, path in defaults_of(root).items():
        _name(root, (name,), path)


def _name(root: Node, path: tuple[str, ...], class_path: str) -> None:
    node = root.at(*path)
    if node is not None and node.class_path is None and (node.children or node.value is None):
        node.class_path = class_path
    elif node is None and len(path) == 1:
        root.children[path[0]] = Node(class_path=class_path)


def of_section(name: str) -> Signature:
    """Return what the class of a fixed section takes."""
    return signature(OBJECTS[name])


_NOT_OPTIONS = ("model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule")
