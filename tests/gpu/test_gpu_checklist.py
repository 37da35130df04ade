"""The checklist for a machine with a GPU, tried on a CPU, so that no typo waits for the day a GPU is there."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace

import pytest
from conftest import ROOT

from experiments.gpu import checklist
from experiments.gpu.record import Record
from experiments.gpu.summary import CHARACTERS, table


@pytest.mark.timeout(400)
def test_all_steps_of_the_checklist_run_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "experiments.gpu.checklist", f"--json={tmp_path / 'out.json'}", "--minutes=5"]
    ran = subprocess.run(
        [*command, "--device=cpu", "--tiny"], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    steps = json.loads((tmp_path / "out.json").read_text())["steps"]
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(checklist.STEPS, "done")
    tests = steps["tests"]["figures"]["counts"]
    assert tests["passed"] > 50 and tests.keys() <= {"passed", "skipped"}
    assert steps["probe"]["figures"]["adaptive"]["gradients_a_rollout"] > 0
    assert steps["update"]["figures"]["against the plan"]["weights_gib"]["predicted/measured"] == pytest.approx(1)
    assert len(ran.stdout) < 12_000


@pytest.fixture
def options(tmp_path) -> Namespace:
    return Namespace(json=tmp_path, device="cpu", tiny=True, tflops=1.0, terabytes=1.0)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a step of some source text, which the child imports."""
    real = sys.executable

    def make(source: str) -> None:
        (tmp_path / "made.py").write_text(source)
        script = tmp_path / "python"
        body = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = sys.argv[2:]; import importlib.util as u\n"
        body += f"spec = u.spec_from_file_location('experiments.gpu.machine', {str(tmp_path / 'made.py')!r})\n"
        body += "module = u.module_from_spec(spec); sys.modules[spec.name] = module; spec.loader.exec_module(module)\n"
        body += "from experiments.gpu import checklist; sys.exit(checklist.main())\n"
        (tmp_path / "child.py").write_text(body)
        script.write_text(f'#!/bin/sh\nexec "{real}" "{tmp_path / "child.py"}" "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return make


def test_a_step_that_raises_keeps_its_figures_and_its_traceback(options, module):
    module("def measure(args, record):\n    record.put('known', 1)\n    raise ValueError('no such kernel')\n")
    found = checklist.children(["machine"], [60.0], options)["machine"]
    assert found["figures"] == {"known": 1}
    assert found["errors"]["step"].endswith("ValueError: no such kernel\n") and found["status"] == "done, 1 failed"


def test_a_step_that_kills_its_process_keeps_its_figures_and_its_output(options, module):
    known = "import os\ndef measure(args, record):\n    record.put('known', 1)\n"
    module(known + "    print('dying', flush=True)\n    os._exit(9)\n")
    found = checklist.children(["machine"], [60.0], options)["machine"]
    assert found["figures"] == {"known": 1}
    assert found["status"] == "failed with status 9" and found["output"] == "dying\n"


def test_a_step_beyond_its_time_is_ended_with_the_processes_that_it_has_started(options, module, tmp_path, monkeypatch):
    monkeypatch.setattr(checklist, "GRACE", 0.0)
    sleeper = "import subprocess, time\ndef measure(args, record):\n    record.put('known', 1)\n"
    sleeper += "    other = subprocess.Popen(['sleep', '60'])\n"
    sleeper += f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(other.pid))\n"
    module(sleeper + "    time.sleep(60)\n")
    found = checklist.children(["machine"], [3.0], options)["machine"]
    assert found["status"] == "out of time" and found["figures"] == {"known": 1}
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not _runs(pid):
            break
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_fails_within_a_step_is_kept_and_the_step_goes_on(tmp_path):
    record = Record(tmp_path / "record.json", seconds=5.0)
    with record.guarded("first") as found:
        found["seconds"] = 2
        raise RuntimeError("out of memory")
    assert not record.in_time("second", 60.0)
    written = json.loads((tmp_path / "record.json").read_text())
    assert written["figures"] == {"first": {"seconds": 2}} and "out of memory" in written["errors"]["first"]
    assert written["skipped"]["second"].startswith("it takes about 60 s")


def test_the_table_is_short_and_shows_the_last_line_of_each_error():
    step = {
        "status": "done, 1 failed",
        "seconds": 3.0,
        "figures": {"a": {"b": 1.23456}},
        "errors": {"c": "x\nE: " + 400 * "y"},
    }
    lines = table(
        {"command": "run", "date": "today", "steps": {"probe": step | {"skipped": {}, "output": ""}}}
    ).splitlines()
    assert lines[2] == "== probe: done, 1 failed, 3.0 s" and lines[3] == "  a: b 1.235"
    assert lines[4].startswith("  FAILED c: E: yyy") and max(map(len, lines)) <= CHARACTERS
