"""An option stands in an error as whoever reads it wrote it: as typed, or by its whole key in the config file."""

import pytest
from conftest import ROOT

from atmanrl.__main__ import main
from atmanrl.commands.options.keys import with_whole_keys
from atmanrl.commands.options.typed import read

LAPTOP = str(ROOT / "configs/laptop.yaml")


@pytest.mark.parametrize(
    ("message", "whole"),
    [
        ("data.group_size is 1.", "--data.group_size is 1."),
        ("it is long; lower data.max_new_tokens.", "it is long; lower data.init_args.max_new_tokens."),
        ("see data.sampler.compile.", "see data.init_args.sampler.init_args.compile."),
        ("see data.top_k.", "see data.init_args.top_k."),
        ("c (in YAML, probe.init_value)", "c (in YAML, model.init_args.rewards.saliency.init_args.probe.init_value)"),
        ("see model.policy.lora.r", "see model.init_args.policy.lora.r"),
        ("trainer.max_steps of config.yaml", f"{LAPTOP}: trainer.max_steps of config.yaml"),
        ("give --data.task.path, or torch.optim.SGD", "give --data.task.path, or torch.optim.SGD"),
        ("/a/data.task/b.txt data.nothing", "/a/data.task/b.txt data.nothing"),
    ],
)
def test_a_message(message, whole, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert with_whole_keys(message, read([f"--config={LAPTOP}", "--data.group_size=1"])) == whole


def test_an_error_of_an_object_names_the_key_in_the_file(tmp_path, monkeypatch, capsys, tiny_folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(
        f"model: {{class_path: GRPOModule, init_args: {{policy: {{path: {tiny_folder}}}}}}}\n"
        "data: {class_path: RolloutDataModule, init_args: {task: {class_path: GSM8K}, sampler: {class_path: HFSampler, "
        "init_args: {cache: dynamic, compile: true}}}}\n"
    )
    assert main(["fit", "--config=own.yaml"]) == 1
    assert capsys.readouterr().err.startswith(
        "atmanrl: error: own.yaml: data.init_args.sampler.init_args.compile needs a cache of fixed shape"
    )
