"""`docs/metrics.md` names every figure that a run logs, and none that no run has."""

import csv
import json
import re

import pytest
from conftest import ROOT

from atmanrl.__main__ import main

NAME = re.compile(r"`((?:[\w{}]+/)*[\w{}]+)`")


STORIES = {"class_path": "WordProblems", "init_args": {"train_size": 10, "test_size": 4, "instruction": ""}}
MIXTURE = {"class_path": "MixtureTask", "init_args": {"tasks": {"stories": STORIES}}}


FAITHFULNESS = {
    "cir": {"class_path": "CausalImportance", "init_args": {"gold": True}},
    "reader": {"class_path": "Reader", "init_args": {"path": str(ROOT / "experiments/laptop/policy")}},
    "erasure": {"class_path": "Erasure", "init_args": {"probe": {"attribution": {"class_path": "GradientAtStart"}}}},
} | {
    name: {"class_path": name}
    for name in (
        "CotAlone", "EarlyAnswering", "InformationFlow", "Mistakes", "Filler", "OperatorSwap", "CopiedAnswer",
        "FalseEquations",
    )
}  # fmt: skip
"""Those that a config must name, in the test alone."""


def named() -> set[str]:
    """The metrics in the first columns of the document's tables."""
    cells = [
        line.split("|")[1] for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `")
    ]
    return {name for cell in cells for name in NAME.findall(cell)}


def general(name: str, rewards=("outcome", "saliency")) -> str:
    """A logged name as the document has it."""
    for reward in rewards:
        name = name.replace(f"rewards/{reward}/", "rewards/{name}/")
    name = re.sub(r"(pass|majority)_at_([02-9]|\d\d+)$", r"\1_at_{k}", name)
    name = re.sub(r"^(val|test)/stories/", r"\1/{task}/", name)
    name = re.sub(r"^(test/(?:comprehensiveness|sufficiency)_)(?:saliency|attention|random)", r"\1{ranking}", name)
    name = re.sub(r"^(test/(?:early|comprehensiveness|sufficiency)_.*_at_)\d+$", r"\1{x}", name)
    return re.sub(r"^(val|test)/(?=probe|saliency)", "", name)


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    """What a run of the laptop policy logs with every option that adds a figure."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = [
        "--config", str(ROOT / "configs/laptop.yaml"), f"--model.policy.path={ROOT / 'experiments/laptop/policy'}",
        f"--trainer.default_root_dir={folder}", "--data.queries_per_device=2", "--data.group_size=6",
        "--data.max_new_tokens=60", "--data.val_problems=2", "--data.test_problems=2", "--data.eval_samples=2",
        f"--data.task={json.dumps(MIXTURE)}", "--data.resample_zero_spread=1",
        '--model.rewards.saliency.only_where={"reward": "outcome", "at_least": -1}',
        "--model.rewards.saliency.probe.solver.steps=3", "--model.rewards.saliency.probe.solver.first_interval=1",
        "--model.rewards.saliency.probe.solver.agreement=0.5",
        "--model.rewards.saliency.share=0.99", "--model.credit=saliency",
        "--model.loss.beta=0.01", "--model.zero_spread_groups=drop", "--model.evaluate_all_rewards=true",
        "--trainer.val_check_interval=1",
    ]  # fmt: skip
    assert main(["fit", *arguments, "--trainer.max_steps=1"]) == 0
    assert (
        main(["test", *arguments, *(f"--metrics.{name}={json.dumps(each)}" for name, each in FAITHFULNESS.items())])
        == 0
    )
    with (folder / "metrics.csv").open() as file:
        names = set(next(csv.reader(file))) - {"step", "epoch"}
    return names | {
        f"test/{name}"
        for name in json.loads((folder / "eval/test.json").read_text())
        if name not in ("setting", "columns", "conditions")
    }


def test_every_logged_metric_is_explained(logged):
    document, missing = named(), set()
    for name in map(general, logged):
        also = name.replace("test/", "val/") if name.endswith("_pct") else name  # "and with `test/`"
        if name not in document and also not in document:
            missing.add(name)
    assert len(logged) > 50 and not missing


def test_nothing_is_explained_that_is_not_logged(logged):
    assert not named() - {general(name) for name in logged}
