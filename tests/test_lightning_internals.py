"""What is private to Lightning is touched in one file alone."""

import ast
import inspect

import lightning
import pytest
from conftest import ROOT
from lightning import LightningModule
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from atmanrl.callbacks import RunLogger
from atmanrl.commands.run_cli import RunCLI
from atmanrl.distributed import FSDP2Strategy
from atmanrl.lightning_internals import trainer_of

HERE = "lightning_internals.py"
OBJECTS = ("trainer", "strategy", "module", "pl_module", "fit_loop", "loop", "epoch_loop", "logger", "optimizer", "cli")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def touched(tree: ast.AST) -> list[str]:
    """Private names that are imported from Lightning, or asked of an object that is Lightning's by its name."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
            names += [alias.name for alias in node.names if private(alias.name)]
        elif isinstance(node, ast.Attribute) and private(node.attr):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            names += [f"{name}.{node.attr}"] if name in OBJECTS else []
    return names


def test_one_file_alone_touches_what_is_private_to_lightning():
    files = {
        path: sorted(touched(ast.parse(path.read_text(encoding="utf-8")))) for path in (ROOT / "atmanrl").rglob("*.py")
    }
    assert {path.name: names for path, names in files.items() if names} == {
        HERE: [
            "_convert_precision_to_unified_args", "_optimizer_handles_unscaling", "module._trainer",
            "strategy._data_parallel_size", "trainer._checkpoint_connector",
        ]
    }  # fmt: skip


@pytest.mark.parametrize("kind", [FSDP2Strategy, RunCLI, RunLogger])
def test_no_private_method_of_lightning_is_overridden_but_there(kind):
    base = next(each for each in kind.__mro__ if each.__module__.startswith(lightning.__name__))
    own = {name for each in kind.__mro__[: kind.__mro__.index(base)] for name in vars(each) if private(name)}
    inherited = {name for name in own if hasattr(base, name)} - {"_abc_impl"}
    assert inherited == ({"_parse_ckpt_path"} if kind is RunCLI else set())


def test_what_is_replaced_is_what_lightning_calls():
    assert "self._parse_ckpt_path()" in inspect.getsource(LightningCLI.__init__)
    assert "self.on_advance_end(" in inspect.getsource(_TrainingEpochLoop.run)


def test_a_module_may_have_no_trainer():
    assert trainer_of(LightningModule()) is None
