"""Options are checked from source: a typo is answered with what was meant, as a whole, and without torch."""

import subprocess
import sys

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.options.refused import as_typed
from atmanrl.commands.run import prepared

LAPTOP = f"--config={ROOT / 'configs/laptop.yaml'}"
NO_TORCH = """
import sys
for name in ("torch", "lightning", "transformers", "jsonargparse"):
    sys.modules[name] = None
from atmanrl.__main__ import main
sys.exit(main())
"""
"""The command line where these imports fail."""


def refusal(*options, capsys, command="fit"):
    status = main([command, *options])
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: ") and "Traceback" not in error
    return status, error.splitlines()[0].removeprefix("atmanrl: error: ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--model.reward.saliency.weight=1", "--model.rewards.saliency.weight"),
        ("--model.rewards.salience.weight=1", "--model.rewards.saliency.weight"),
        ("--model.rewards.saliency.wieght=1", "--model.rewards.saliency.weight"),
        ("--model.rewards.saliency.probe.solver.tolerence=1", "--model.rewards.saliency.probe.solver.tolerance"),
        ("--model.polisy.path=x", "--model.policy.path"),
        ("--trainer.max_stepps=3", "--trainer.max_steps"),
        ("--data.task=GSM8k", "--data.task=GSM8K"),
        ("--data.task=Wordproblems", "--data.task=WordProblems"),
        ("--model=GRPOmodule", "--model=GRPOModule"),
        ("--data.sampler=HFsampler", "--data.sampler=HFSampler"),
        ("--model.scale_rewards=grup", "group"),
        ("--modl.policy.path=x", "--model.policy.path"),
        ("--checkpoint.every_n_update5=2", "--checkpoint.every_n_updates"),
        ("--confg=laptop", "--config"),
    ],
)
def test_a_misspelt_option_is_answered_by_the_one_that_was_meant(typed, meant, capsys):
    status, sentence = refusal(LAPTOP, typed, capsys=capsys)
    assert status == 2 and sentence.startswith(f"{typed.partition('=')[0]}: ") and f"did you mean {meant}?" in sentence


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--trainer.max_steps=soon", "'soon' is no whole number"),
        ("--data.temperature=hot", "'hot' is no number"),
        ("--model.share_prompts=perhaps", "is no truth value"),
        ("--data.task=Sudoku", "there are GSM8K, MMLU, MixtureTask, MultiHop, ReasoningGym, WordProblems"),
    ],
)
def test_a_value_of_another_type_is_refused(typed, says, capsys):
    status, sentence = refusal(LAPTOP, typed, capsys=capsys)
    assert status == 2 and sentence.startswith(f"{typed.partition('=')[0]}: ") and says in sentence


def test_a_config_files_keys_are_named_whole_with_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(
        "data: {class_path: RolloutDataModule, init_args: {task: {class_path: GSM8K}, sampler: {class_path: HFSampler, "
        "init_args: {cach: static}}}}"
    )
    status, sentence = refusal(LAPTOP, "--config=own.yaml", capsys=capsys)
    assert status == 2 and sentence == (
        "own.yaml: data.init_args.sampler.init_args.cach: HFSampler has no option 'cach'; did you mean "
        "data.init_args.sampler.init_args.cache?"
    )
    status, sentence = refusal("--config=lptop", capsys=capsys)
    assert status == 2 and "there is no file lptop; did you mean laptop?" in sentence


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "--model.policy.path is missing"),
        (["--model.policy.path=own/model"], "--data.task is missing"),
        (["--model=SFTModule", "--model.policy.path=own/model"], "--data.task is missing"),
    ],
)
def test_without_a_config_what_is_missing_is_said(options, says, capsys):
    status, sentence = refusal(*options, capsys=capsys)
    assert status == 2 and sentence.startswith(says) and "give --" in sentence.lower()


@pytest.mark.parametrize("path", ["/nowhere", "./nowhere", "a/b/c", "~/nowhere"])
def test_a_folder_that_is_not_there_is_no_name_on_the_hub(path, capsys):
    status, sentence = refusal(LAPTOP, f"--model.policy.path={path}", capsys=capsys)
    assert status == 1 and sentence.startswith(f"--model.policy.path: there is no such folder, {path}")


def test_model_and_data_have_defaults():
    options = ["--model.policy.path=own/model", "--data.task=GSM8K"]
    assert prepared("fit", options)[1] == ["--model=GRPOModule", "--data=RolloutDataModule", *options]
    assert "--data=SFTDataModule" in prepared("fit", ["--model=SFTModule", *options])[1]


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--model.optimizer.lrr=1", "SGD has no option 'lrr'; did you mean --model.optimizer.lr?"),
        (
            "--model.optimizer=AdamW --model.optimizer.beta=1",
            "AdamW has no option 'beta'; did you mean --model.optimizer.betas?",
        ),
    ],
)
def test_an_option_of_a_class_of_another_package(option, says):
    typed = ["fit", LAPTOP, *option.split()]
    name = option.rpartition(".")[2].partition("=")[0]
    assert as_typed(f"Option '{name}' is not accepted", typed) == f"--model.optimizer.{name}: {says}"


@pytest.mark.parametrize("value", ["NestedArg(key='steps', val='3')", "Namespace(steps='3')"])
def test_an_option_of_a_class_that_is_not_named(value):
    said = f"solver: Expected a typing.Literal['paper', 'adaptive']. Got value: {value}"
    answer = (
        "--probe.solver.steps: this is an option of a class, and none is named; name it first, by --probe.solver=CLASS."
    )
    assert as_typed(said, ["probe", "--steps=1", "--probe.solver=paper", "--probe.solver.steps=3"]) == answer
    assert as_typed(said, ["probe", "--config=own.yaml"]) == said


@pytest.mark.parametrize("config", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_every_configuration_passes(config):
    assert prepared("fit", [f"--config={ROOT / 'configs' / config}"], begins=False)


@pytest.mark.parametrize(
    "options",
    [
        ["--model.rewards={mine: {class_path: own.Mine, init_args: {any: 1}}}"],
        ["--model.rewards.mine=own.Mine", "--model.rewards.mine.any=1", "--data.task=Mine"],
        ["--metrics.composition.pipeline=en_core_web_sm", "--metrics.finished=null"],
        ["--model.optimizer=AdamW", "--model.optimizer.lr=1e-5"],
        ["--model.policy.lora.r=8", "--model.policy.chat_template_kwargs={enable_thinking: false}"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=reward", "--trainer.max_step", "3"],
        ["--model.rewards.saliency.probe.solver=adaptive", "--data.delimiter=</think>", "--model.credit=saliency"],
        ["--data.task=MultiHop", "--data.stop=['x']", "--trainer.limit_val_batches=0.5", "--trainer.precision=16"],
    ],
)
def test_what_the_source_does_not_tell_is_left_to_the_parser(options):
    assert prepared("fit", [LAPTOP, *options], begins=False)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--help"], 0, "atmanrl fit"),
        (["fit", "--help"], 0, "--model.policy.path"),
        (["test", "--config", "laptop", "--help"], 0, "[experiments/laptop/policy]"),
        (["fit", "--data.help"], 0, "--data.group_size"),
        (["fit", "--data.task.help"], 0, "WordProblems"),
        (["plan", "--help"], 0, "--memory"),
        (["probe", "--help"], 0, "--traces"),
        (["explain", "--help"], 0, "--prompt"),
        (["export", "--help"], 0, "--ckpt"),
        (["fit", "--config", "laptop", "--model.reward.saliency.weight=1"], 2, "did you mean"),
        (["fit", "--config", "laptop", "--model.policy.path=/nowhere"], 1, "no such folder"),
        (["export", "--ckpt=/nowhere/a.ckpt", "--out=x"], 1, "no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_errors_in_options_import_no_torch(arguments, status, says):
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *arguments], capture_output=True, text=True)
    assert done.returncode == status and says in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr
