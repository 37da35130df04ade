"""What trains needs neither spaCy, datasets, jsonargparse nor rich: machines with GPUs are often bare."""

import json
import os
import subprocess
import sys

from conftest import ROOT

BARE = """
import importlib, json, pkgutil, sys

ABSENT = ("spacy", "datasets", "jsonargparse", "rich", "numba")
KERNELS = {f"atmanrl.probe.{name}" for name in ("fused", "solvers.walk_numba", "solvers.walk_triton")}


class Without:
    '''A finder that finds neither the absent packages nor their metadata.'''

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in ABSENT
        return None if absent else self.finder.find_spec(name, path, target)

    def find_distributions(self, context):
        absent = context.name in ABSENT or not hasattr(self.finder, "find_distributions")
        return iter(()) if absent else self.finder.find_distributions(context)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
core = ["sft", "plan.estimate"]
core += ["plan.settings", "metrics.composition", "report"]
for package in ("models", "io", "views", "probe", "faithfulness", "rollouts", "rewards", "grpo", "distributed", "tasks"):
    found = importlib.import_module(f"atmanrl.{package}")
    # kernels are imported where their compiler is
    core += [each.name.removeprefix("atmanrl.") for each in pkgutil.walk_packages(found.__path__, found.__name__ + ".")
             if each.name not in KERNELS]
for name in core:
    importlib.import_module(f"atmanrl.{name}")

from atmanrl import explain
from atmanrl.probe import PaperSolver

explanation = explain(sys.argv[1], None, "What is 3 + 4?", "3 + 4 = 7.", "7", solver=PaperSolver(steps=1))
print(json.dumps({"core": core, "explained": explanation.to_json(), "loaded": [n for n in ABSENT if n in sys.modules]}))
"""


def test_the_core_imports_and_explains_on_a_machine_without_spacy_datasets_jsonargparse_and_rich(tiny_folder):
    command = [sys.executable, "-c", BARE, str(tiny_folder)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["loaded"] == []
    assert {"grpo.module", "distributed.strategy", "probe.solvers.adaptive", "rollouts.datamodule"} <= set(said["core"])
    assert len(said["explained"]["saliency"]) == len(said["explained"]["tokens"]) > 0
