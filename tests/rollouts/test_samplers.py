"""A user's own sampler, named by its class path; and when it hears of new weights."""

import json
import sys

import pytest
import yaml
from conftest import ROOT, fenced
from test_datamodule import Recorder, data, said, trainer

from atmanrl.__main__ import main
from atmanrl.errors import UserError
from atmanrl.rollouts import HFSampler, Sampler, SamplingOptions

OWN = fenced("docs/extending.md", "python", "# engine.py")


def test_a_users_sampler_in_an_empty_folder_runs_an_update(tiny_folder, tmp_path, monkeypatch):
    assert len(OWN.strip().splitlines()) <= 30
    (tmp_path / "engine.py").write_text(OWN)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load((ROOT / "configs/laptop.yaml").read_text())
    config["data"]["init_args"]["sampler"] = {
        "class_path": "engine.EngineSampler",
        "init_args": {"text": "2 + 2 ##### 4"},
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    arguments = [
        "fit", "--config=own.yaml", "--trainer.default_root_dir=run", f"--model.policy.path={tiny_folder}",
        "--trainer.max_steps=1", "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=24",
        "--trainer.limit_val_batches=0", "--data.task.train_size=120",
    ]  # fmt: skip
    assert main(arguments) == 0
    traces = [json.loads(line) for line in (tmp_path / "run/rollouts/update_00001.jsonl").read_text().splitlines()]
    assert [trace["cot"] for trace in traces] == ["2 + 2 "] * 4
    assert "engine.EngineSampler" in (tmp_path / "run/config.yaml").read_text()


def test_the_shipped_sampler_is_named_shortly_in_yaml(tiny_folder, tmp_path, capsys):
    arguments = [
        "fit", f"--config={ROOT / 'configs/laptop.yaml'}", f"--trainer.default_root_dir={tmp_path / 'run'}",
        f"--model.policy.path={tiny_folder}", "--trainer.max_steps=1", "--data.queries_per_device=2",
        "--data.group_size=2", "--data.max_new_tokens=4", "--trainer.limit_val_batches=0", "--data.sampler=HFSampler",
        "--data.task.train_size=120",
    ]  # fmt: skip
    assert main([*arguments, "--data.sampler.cache=static", "--data.sampler.compile=false"]) == 0
    assert "cache: static" in (tmp_path / "run/config.yaml").read_text()
    arguments[2] = f"--trainer.default_root_dir={tmp_path / 'other'}"
    assert main([*arguments, "--data.sampler.cache=dynamic", "--data.sampler.compile=true"]) == 1
    assert "compile needs a cache of fixed shape" in capsys.readouterr().err


class Noting(HFSampler):
    """Notes what is asked of it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def sync(self, policy):
        self.calls.append("sync")

    def sample(self, policy, prompts, uniforms, options):
        self.calls.append("sample")
        return super().sample(policy, prompts, uniforms, options)


def test_a_sampler_hears_of_new_weights_once_an_update(tiny_policy):
    sampler, module = Noting(), Recorder(tiny_policy)
    feed = data(sampler=sampler, eval_queries=3)
    trainer(max_steps=3, val_check_interval=2, check_val_every_n_epoch=None, num_sanity_val_steps=0).fit(module, feed)
    training, validation = ["sync", "sample"], ["sync", "sample", "sample"]
    # after the second update validation comes first, and the third one's weights are known already
    assert sampler.calls == [*training, *training, *validation, "sample"]
    sampler.calls.clear()
    trainer().validate(module, feed)
    assert sampler.calls == validation


def test_the_default_sampler_is_todays(tiny_policy):
    problems = list(enumerate(data().task.problems("train")))[:3]
    default = data().answer(tiny_policy, problems, "train", 0, 2)
    named = data(sampler=HFSampler(cache="dynamic", compile=False)).answer(tiny_policy, problems, "train", 0, 2)
    assert said(default) == said(named)


def test_options_are_typed_and_checked():
    options = SamplingOptions(max_new_tokens=5, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, stop=("x",))
    feed = data(max_new_tokens=5, temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, stop=["x"])
    assert feed.sampling == options and options.truncation.top_k == 3
    for name, value in {"max_new_tokens": 0, "temperature": 0.0, "top_k": -1, "top_p": 0.0, "min_p": 2.0}.items():
        with pytest.raises(UserError, match=rf"data\.{name} is {value}"):
            SamplingOptions(**{name: value})


def test_a_sampler_must_sample():
    with pytest.raises(TypeError, match="abstract method"):
        Sampler()
    assert Sampler.sync(HFSampler(), None) is None
