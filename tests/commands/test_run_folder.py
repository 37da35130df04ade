"""The run's logger, its export and its callbacks, each alone."""

import csv
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from atmanrl.callbacks import PolicyExport, RunLogger
from atmanrl.commands.run_folder import RunFolder
from atmanrl.errors import UserError
from atmanrl.io.folders import mark
from atmanrl.models.policy import Policy


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def log(logger, step, **figures):
    logger.log_metrics(figures, step)
    logger.save()


def test_a_second_logger_adds_to_the_file(tmp_path):
    log(RunLogger(str(tmp_path)), 0, reward=1.0)
    log(RunLogger(str(tmp_path)), 1, reward=2.0, kl=0.5)
    assert rows(tmp_path) == [{"reward": "1.0", "step": "0"}, {"reward": "2.0", "kl": "0.5", "step": "1"}]


def test_rewind_drops_what_will_be_written_again(tmp_path):
    logger = RunLogger(str(tmp_path))
    for step in range(4):
        log(logger, step, reward=float(step))
    again = RunLogger(str(tmp_path))
    again.rewind(2)
    log(again, 2, reward=7.0)
    assert [row["reward"] for row in rows(tmp_path)] == ["0.0", "1.0", "7.0"]


def test_rewind_without_a_file_is_nothing(tmp_path):
    RunLogger(str(tmp_path)).rewind(3)
    assert not (tmp_path / "metrics.csv").exists()


def test_export_replaces_an_older_one_and_loads_with_the_same_logits(tmp_path, tiny_folder):
    policy = Policy(str(tiny_folder)).build()
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy/old").write_text("old")
    mark(tmp_path / "policy", "fit")
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True)
    PolicyExport().on_fit_end(trainer, SimpleNamespace(policy=policy))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "policy")
    ids = torch.tensor([tokenizer("Anna has 3 apples.").input_ids])
    torch.testing.assert_close(model(ids).logits, policy.model(ids).logits, rtol=0, atol=0)
    assert {p.name for p in tmp_path.iterdir()} == {"policy"}
    assert not (tmp_path / "policy/old").exists()


def test_export_in_another_dtype_leaves_the_policy_alone(tmp_path, tiny_folder):
    policy = Policy(str(tiny_folder)).build()
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True)
    PolicyExport("bfloat16").on_fit_end(trainer, SimpleNamespace(policy=policy))
    assert policy.model.dtype == torch.float32
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "policy").dtype == torch.bfloat16


def test_a_folder_that_is_refused_is_left_without_a_lock(tmp_path):
    (tmp_path / "config.yaml").write_text("of somebody else")
    everyone = SimpleNamespace(broadcast=lambda refusal: refusal)
    trainer = SimpleNamespace(default_root_dir=str(tmp_path), is_global_zero=True, strategy=everyone)
    with pytest.raises(UserError, match="already holds a run"):
        RunFolder(None, {}).setup(trainer, None, "fit")
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
