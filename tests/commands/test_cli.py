"""The command line, in this process: a whole run of a tiny policy, its folder, and wrong input."""

import csv
import json
import subprocess
import sys
import time

import pytest
import torch
import yaml
from conftest import ROOT

from atmanrl.__main__ import COMMANDS, main

LAPTOP = str(ROOT / "configs/laptop.yaml")
POLICY = ROOT / "experiments/laptop/policy"
SMALL = [
    "--data.queries_per_device=2", "--data.group_size=4", "--data.max_new_tokens=112", "--data.val_problems=3",
    "--data.test_problems=3", "--data.eval_samples=2", "--data.task.train_size=40", "--data.task.test_size=10",
    "--model.rewards.saliency.probe.solver.steps=6", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=true",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of the laptop policy, four updates, with checkpoints every second update."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(fit(folder, POLICY, 4)) == 0
    return folder


def fit(folder, policy, updates, *more):
    return [
        "fit", "--config", LAPTOP, f"--model.policy.path={policy}", f"--trainer.default_root_dir={folder}",
        f"--trainer.max_steps={updates}", "--checkpoint.every_n_updates=2", "--checkpoint.keep=-1", *SMALL, *more,
    ]  # fmt: skip


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_folder_of_a_run(run):
    made = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        "config.yaml", "metrics.csv", "rollouts/update_00001.jsonl", "rollouts/update_00004.jsonl",
        "eval/validation_00002.json", "eval/validation_00004.json", "eval/validation_00004.jsonl",
        "checkpoints/update_00002.ckpt", "checkpoints/last.ckpt", "policy/model.safetensors", "policy/tokenizer.json",
    } <= made  # fmt: skip
    training = [row for row in rows(run) if row["reward"]]
    assert len(training) == 4
    assert all(row["cot/numbers_pct"] and row["step_time"] and row["completions/mean_length"] for row in training)
    assert any(float(row["grad_norm"]) > 0 for row in training)
    assert all(float(row["probe/loss_final"]) < float(row["probe/loss_initial"]) for row in training)
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["rewards"]["saliency"]["init_args"]["probe"]["init_args"]["init_value"] == -0.4
    trace = json.loads((run / "rollouts/update_00001.jsonl").read_text().splitlines()[0])
    assert {"problem_id", "prompt", "cot", "answer", "gold", "rewards", "completion_ids", "saliency"} <= trace.keys()


def test_validate_reproduces_the_last_validation_exactly(run):
    arguments = fit(run, POLICY, 4)
    arguments = ["validate", *[a for a in arguments[1:] if "max_steps" not in a]]
    assert main([*arguments, f"--ckpt_path={run / 'checkpoints/last.ckpt'}"]) == 0
    again, first = (json.loads((run / "eval" / f"{n}.json").read_text()) for n in ("validate", "validation_00004"))
    assert {k: v for k, v in again.items() if k != "setting"} == {k: v for k, v in first.items() if k != "setting"}
    assert (run / "eval/validate.jsonl").read_bytes() == (run / "eval/validation_00004.jsonl").read_bytes()


def test_a_resumed_run_is_the_uninterrupted_run(run, tmp_path):
    assert main(fit(tmp_path / "half", POLICY, 2)) == 0
    assert main(fit(tmp_path / "half", POLICY, 4, "--ckpt_path=last")) == 0
    for update in (1, 2, 3, 4):
        name = f"rollouts/update_{update:05d}.jsonl"
        assert (tmp_path / "half" / name).read_bytes() == (run / name).read_bytes(), name
    whole, half = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (run, tmp_path / "half"))
    assert all(torch.equal(v, half["state_dict"][k]) for k, v in whole["state_dict"].items())
    begun = torch.load(run / "checkpoints/update_00002.ckpt", weights_only=True)["state_dict"]
    assert any(not torch.equal(v, begun[k]) for k, v in whole["state_dict"].items())
    untimed = [{k: v for k, v in row.items() if "time" not in k and "seconds" not in k} for row in rows(run)]
    assert [
        {k: v for k, v in r.items() if "time" not in k and "seconds" not in k} for r in rows(tmp_path / "half")
    ] == untimed


def test_test_predict_probe_and_table(run, tmp_path, capsys):
    common = ["--config", LAPTOP, f"--model.policy.path={run / 'policy'}", *SMALL]
    for name in ("one", "baseline"):
        assert main(["test", *common, f"--trainer.default_root_dir={tmp_path / name}", "--data.eval_samples=4"]) == 0
    figures = json.loads((tmp_path / "one/eval/test.json").read_text())
    assert {
        "tokens_per_cot",
        "numbers_pct",
        "stop_words_pct",
        "symbols_pct",
        "pass_at_1",
        "pass_at_4",
    } <= figures.keys()
    assert figures["setting"]["tagger"] == "lexical rules"
    assert main(["predict", *common, f"--trainer.default_root_dir={tmp_path / 'one'}"]) == 0
    predictions = tmp_path / "one/predictions.jsonl"
    assert len(predictions.read_text().splitlines()) == 6
    probe = ["probe", f"--model={run / 'policy'}", f"--traces={predictions}", f"--out={tmp_path / 'probed'}"]
    assert main([*probe, "--probe.solver=AdaptiveSolver", "--probe.solver.steps=3", "--device=cpu"]) == 0
    assert len((tmp_path / "probed/traces.jsonl").read_text().splitlines()) == 6
    assert main([*probe, "--device=cpu"]) == 1
    capsys.readouterr()
    assert main(["table", str(tmp_path / "one"), str(tmp_path / "baseline"), f"--json={tmp_path / 'table1.json'}"]) == 0
    assert "baseline" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "table1.json").read_text())) == {"one", "baseline"}


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--trainer.max_stepps=3"], 2, "max_stepps"),
        (["--model.polisy.path=x"], 2, "polisy"),
        (["--model.rewards.saliency.wieght=2"], 2, "wieght"),
        (["--data.task=GSM8K", "--data.task.path={tmp}"], 1, "train.jsonl"),
        (["--data.task=GSM8K", "--data.task.path={tmp}/gsm8k"], 1, "line 1"),
        (["--model.policy.path={tmp}/bare"], 1, "holds no tokenizer"),
        (["--model.policy.path={tmp}/nowhere"], 1, "nowhere"),
        (["--model.policy.attn_implementation=flash_attention_2"], 1, "FlashAttention2"),
        (["--model.rewards.saliency.probe.init_value=0.4"], 1, "below 0"),
        (["--model.rewards.saliency.probe.solver.tolerance=-1"], 1, "error: the adaptive solver needs tolerance > 0"),
        (["--data.group_size=1"], 1, "group_size"),
        (["--model.loss.epsilon_high=high"], 2, "epsilon_high"),
        (
            ["--model.epsilon_high=0.3"],
            2,
            "give model.loss.init_args.epsilon_high with model.loss.class_path: ClippedLoss",
        ),
        (["--trainer.val_check_interval=0"], 1, "trainer.val_check_interval is 0"),
        (["--metrics.composition.pipeline=en_no_such_model"], 1, "spacy download"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, status, sentence, tiny_folder, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text((tiny_folder / "config.json").read_text())
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/train.jsonl").write_text('{"question": "1+1?"}\n')
    given = [a.format(tmp=tmp_path) for a in arguments]
    try:
        found = main(fit(tmp_path / "run", tiny_folder, 1, *given))
    except SystemExit as stop:
        found = stop.code
    error = capsys.readouterr().err
    assert (found, "Traceback" in error) == (status, False)
    assert sentence in error.splitlines()[0]
    assert error.startswith("atmanrl: error: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_gpu_that_is_not_there(tiny_folder, tmp_path, capsys):
    assert main(fit(tmp_path / "run", tiny_folder, 1, "--trainer.accelerator=gpu")) == 1
    assert capsys.readouterr().err.startswith("atmanrl: error: ")


@pytest.mark.parametrize(
    ("given", "bars"),
    [
        ([], ["UpdateProgress"]),
        (["--trainer.enable_progress_bar=false"], []),
        (["--trainer.callbacks=TQDMProgressBar"], ["TQDMProgressBar"]),
    ],
)
def test_the_progress_bar_can_be_left_out_or_replaced(given, bars, tiny_folder, tmp_path, monkeypatch):
    from lightning.pytorch.callbacks import ProgressBar

    from atmanrl.commands.run_cli import RunCLI

    made = []
    monkeypatch.setattr(RunCLI, "_run_subcommand", lambda self, _: made.append(self.trainer))
    arguments = [a for a in fit(tmp_path / "run", tiny_folder, 1, *given) if a != "--trainer.enable_progress_bar=true"]
    assert main([*arguments, "--rollout_table.every_n_updates=3"]) == 0
    callbacks = {type(c).__name__: c for c in made[0].callbacks}
    assert [name for name, c in callbacks.items() if isinstance(c, ProgressBar)] == bars
    assert "EvaluationReport" in callbacks and callbacks["RolloutTable"].every_n_updates == 3


REWARDS = """
model:
  init_args:
    rewards:
      outcome: {class_path: OutcomeReward}
      form: {class_path: FormatReward, init_args: {weight: 0.5}}
      short:
        class_path: LengthReward
        init_args: {max_completion_len: 8, soft_punish_cache: 4, only_where: {reward: outcome, at_least: -1.0}}
      saliency: {class_path: SaliencyReward, init_args: {only_where: {reward: outcome, at_least: 1.0}}}
      overlong:
        class_path: FunctionReward
        init_args:
          function: trl.rewards.get_soft_overlong_punishment
          arguments: {max_completion_len: 8, soft_punish_cache: 4}
          only_where: {reward: form, at_least: -1.0}
          timeout_s: null
data:
  init_args:
    task:
      class_path: MixtureTask
      init_args:
        weights: {stories: 3, hops: 1}
        tasks:
          stories: {class_path: WordProblems, init_args: {train_size: 30, test_size: 3, instruction: ""}}
          hops: {class_path: MultiHop, init_args: {train_size: 30, test_size: 3, instruction: ""}}
    top_p: 0.9
    top_k: 50
    min_p: 0.01
    stop: ["@"]
    resample_zero_spread: 1
"""


def test_a_run_with_several_tasks_gated_rewards_and_functions(tiny_folder, tmp_path):
    pytest.importorskip("trl")
    (tmp_path / "more.yaml").write_text(REWARDS)
    common = [a for a in SMALL if "task" not in a and "saliency" not in a and "max_new" not in a]
    folder, config = tmp_path / "run", ["--config", LAPTOP, f"--config={tmp_path / 'more.yaml'}"]
    options = [f"--trainer.default_root_dir={folder}", "--trainer.max_steps=2", "--data.max_new_tokens=8"]
    assert main(["fit", *config, f"--model.policy.path={tiny_folder}", *options, *common]) == 0
    traces = [json.loads(line) for line in (folder / "rollouts/update_00001.jsonl").read_text().splitlines()]
    assert {t["problem_id"].partition("/")[0] for t in traces} <= {"stories", "hops"}
    assert all(t["rewards"]["short"] == t["rewards"]["overlong"] <= 0 for t in traces)
    assert all(t["rewards"]["saliency"] is None and t["rewards"]["form"] == 0 for t in traces)
    (first, *_) = rows(folder)
    assert (float(first["rewards/saliency/counted"]), float(first["rewards/short/counted"])) == (0, 1)
    evaluation = json.loads((folder / "eval/validation_00002.json").read_text())
    assert {"stories/pass_at_1", "hops/pass_at_1"} <= evaluation.keys()
    assert evaluation["setting"]["min_p"] == 0.01


def test_a_finished_run_is_not_overwritten(run, tiny_folder, capsys):
    before = (run / "metrics.csv").read_bytes()
    assert main(fit(run, tiny_folder, 4)) == 1
    assert "already holds a run" in capsys.readouterr().err
    assert (run / "metrics.csv").read_bytes() == before


def test_help_is_answered_before_torch_is_imported():
    began = time.perf_counter()
    code = "import sys; from atmanrl.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in COMMANDS)
    assert time.perf_counter() - began < 10  # the import check above is the point; this only bounds a hang


def test_no_command_and_unknown_command(capsys):
    assert main([]) == 2
    assert main(["train"]) == 2
    assert "no command 'train'" in capsys.readouterr().err
    assert main(["tset"]) == 2
    assert "no command 'tset'; did you mean test?" in capsys.readouterr().err
    assert main(["--version"]) == 0
