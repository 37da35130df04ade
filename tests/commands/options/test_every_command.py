"""Every command answers a misspelt option, or a misspelt choice, by the one that was meant, before torch is imported."""

import importlib
import subprocess
import sys

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.options.declared import declared

POLICY, README = str(ROOT / "experiments/laptop/policy"), str(ROOT / "README.md")
EXPLAIN = ("explain", f"--model={POLICY}", "--prompt=x")
PROBE = ("probe", f"--model={POLICY}", f"--traces={README}", "--out=x")
PLAN = ("plan", "--config=laptop", "--devices=1", "--memory=80GB", "--flops=1T")
MISSPELT = {
    (*EXPLAIN, "--inti_value=-1"): "--init_value",
    (*EXPLAIN, "--solver=papr"): "--solver=paper",
    (*EXPLAIN, "--dtype=flot32"): "float32",
    (*EXPLAIN, "--shape=ful"): "full",
    ("explain", f"--model={POLICY}", "--promt=x"): "--prompt",
    (*PROBE, "--fields.promt=question"): "--fields.prompt",
    (*PROBE, "--probe.solver=adaptiv"): "--probe.solver=adaptive",
    (*PROBE, "--probe.solver=AdaptiveSolver", "--probe.solver.tolerence=1"): "--probe.solver.tolerance",
    (*PROBE, "--policy.compil=none"): "--policy.compile",
    (*PROBE, "--limt=3"): "--limit",
    (*PROBE, "--dtype=flot32"): "float32",
    ("table", "run", "--basline=x"): "--baseline",
    ("report", "run", "--out=x", "--exampels=3"): "--examples",
    ("report", "run", "--uot=x"): "--out",
    (*PLAN, "--efficiensy=1"): "--efficiency",
    (*PLAN, "--data.group_sise=4"): "--data.group_size",
    ("plan", "--config=laptop", "--devicess=1"): "--devices",
    ("plan", "--config=laptpo", *PLAN[2:]): "laptop",
    ("sweep", "sweeps/reward_weight", "--jbs=2"): "--jobs",
    ("sweep", "sweeps/reward_wait"): "sweeps/reward_weight",
    ("export", "--ckpt=x", "--out=y", "--polcy=z"): "--policy",
    ("export", "--ckpt=x", "--out=y", "--dtype=flot32"): "float32",
    ("export", "--ckpt=x", "--out=y", "--merge_lora=tru"): "true",
    ("configs", "copy", "laptpo"): "laptop",
    ("configs", "copy", "laptop", "--too=x"): "--to",
    ("configs", "cpy"): "copy",
    ("tabel",): "table",
}
WRONG = {
    (*EXPLAIN, "--init_value=1"): "init_value is 1.0",
    (*EXPLAIN, "--device=foo"): "device 'foo' is unknown; choose auto, cpu, cuda, cuda:1",
    (*EXPLAIN, "--max_new_tokens=0"): "max_new_tokens is 0; give at least 1.",
    (*PROBE, "--device=cuda:x"): "device 'cuda:x' is unknown",
    (*PROBE, "--batch_size=0"): "--batch_size is 0; give at least 1.",
    (*PROBE, "--limit=few"): "--limit: 'few' is no whole number.",
    (*PROBE, "--limit=0"): "--limit is 0; give at least 1.",
    (*PROBE, "--probe.init_value=1"): "init_value is 1.0 (--probe.init_value); give a number below 0.",
    (*PROBE[:2], "--traces=nowhere.jsonl", "--out=x"): "the traces nowhere.jsonl cannot be read",
    (*PROBE[:2], f"--traces={ROOT / 'docs'}", "--out=x"): "the folder holds no file of rows that can be read",
    ("probe", "--model=./nowhere", *PROBE[2:]): "--model: there is no such folder, ./nowhere",
    ("probe", "--model=x"): "--traces and --out are missing",
    ("report", "run"): "atmanrl report needs --out.",
    ("report", "run", "--out=x", "--examples=few"): "--examples: 'few' is no whole number.",
    ("sweep", "sweeps/reward_weight", "--jobs=few"): "--jobs: 'few' is no whole number.",
    (*PLAN[:3], "--memory=80GX", "--flops=1T"): "--memory '80GX' is no quantity",
    ("table", "run", "--json"): "--json: expected one argument.",
}


@pytest.mark.parametrize(("command", "meant"), list(MISSPELT.items()))
def test_what_is_misspelt_is_answered_by_what_was_meant(command, meant, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(list(command)) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: ") and f"did you mean {meant}?" in error.splitlines()[0], error
    assert "loading" not in error


def main_of(name):
    return too_late if name in ("probe", "explain") else importlib.import_module(f"atmanrl.commands.{name}").main


def too_late(args):
    raise AssertionError("the options were not refused before the command's libraries are imported")


@pytest.mark.parametrize(("command", "says"), list(WRONG.items()))
def test_a_wrong_value_is_refused_at_once(command, says, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("atmanrl.__main__._main_of", main_of)
    assert main(list(command)) in (1, 2)
    error = capsys.readouterr().err
    assert says in error.splitlines()[0] and "loading" not in error, error


def test_the_declared_options_are_those_of_the_parser():
    from atmanrl.commands import explain
    from atmanrl.commands.probe import command

    for name, module in {"explain": explain, "probe": command}.items():
        dests = {action.dest.partition(".")[0] for action in module._parser()._actions}
        assert dests <= set(declared(name).kinds), name


def test_none_of_it_imports_torch():
    code = "import sys; sys.modules['torch'] = None; from atmanrl.__main__ import main; sys.exit(main())"
    ran = subprocess.run([sys.executable, "-c", code, *PROBE, "--batch_size=0"], capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.startswith("atmanrl: error: --batch_size is 0"), ran.stderr
