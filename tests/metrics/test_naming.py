"""Metrics named in configs and on the command line."""

import pytest
import yaml
from conftest import ROOT

from atmanrl.__main__ import main

LAPTOP = f"--config={ROOT / 'configs/laptop.yaml'}"


@pytest.fixture
def printed(tmp_path, capsys):
    """The metrics of a command with some YAML after a shipped config, as `--print_config` gives them."""

    def metrics(text, *arguments):
        (tmp_path / "own.yaml").write_text(text)
        try:
            status = main(["fit", LAPTOP, f"--config={tmp_path / 'own.yaml'}", *arguments, "--print_config"])
        except SystemExit as stop:
            status = stop.code
        output = capsys.readouterr()
        return yaml.safe_load(output.out)["metrics"] if status == 0 else output.err

    return metrics


def test_named_metrics_are_added_to_the_others(printed):
    metrics = printed("metrics: {mine: {class_path: CotLength}, majority_at_k: null}", "--metrics.finished=null")
    assert list(metrics) == ["tokens_per_cot", "composition", "pass_at_k", "majority_at_k", "finished", "mine"]
    assert [name for name, value in metrics.items() if value is None] == ["majority_at_k", "finished"]


def test_options_reach_a_metric_by_its_name(printed):
    metrics = printed(
        "metrics: {composition: {pipeline: some_model}, mine: {class_path: PassAtK}}",
        "--metrics.composition.stages=[test]", "--metrics.mine.ks=[2]",
    )  # fmt: skip
    assert metrics["composition"]["init_args"] == {"pipeline": "some_model", "stages": ["test"]}
    assert metrics["mine"]["init_args"]["ks"] == [2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("metrics: {mine: {class_path: OutcomeReward}}", "OutcomeReward"),
        ("metrics: {finished: {stages: [fit]}}", "stages"),
        ("metrics: {composition: {pipelines: x}}", "pipelines"),
        ("composition: {pipeline: null}", "composition.pipeline is now called metrics.composition.pipeline"),
    ],
)
def test_wrong_metrics_are_told_in_a_sentence(printed, text, sentence):
    error = printed(text)
    assert isinstance(error, str) and sentence in error.splitlines()[0]


def test_the_old_name_on_the_command_line(printed):
    error = printed("{}", "--composition.pipeline=en_core_web_sm")
    assert error.startswith(
        "atmanrl: error: composition.pipeline is now called metrics.composition.pipeline; name it so"
    )
