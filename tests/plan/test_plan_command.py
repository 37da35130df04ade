"""`atmanrl plan` on every shipped config, what it answers, and wrong input."""

import json

import pytest
from conftest import ROOT, skip_without_packages_of
from test_shape_and_flops import tiny

from atmanrl.__main__ import main
from atmanrl.plan.hardware import CPU, GPU
from atmanrl.plan.units import bytes_text, counted, parse_bytes, parse_flops, seconds_text

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MACHINE = ["--devices=2", "--memory=80GB", "--flops=989T"]


@pytest.fixture(scope="module")
def model_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(tiny().to_json_string())
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_can_be_planned(path, model_config, tmp_path, capsys):
    skip_without_packages_of(path)
    out = tmp_path / "plan.json"
    machine = [*MACHINE, "--devices=1"] if path.stem.endswith("_sft") else MACHINE  # all that a warm start may have
    assert main(["plan", f"--config={path}", *machine, f"--model_config={model_config}", f"--json={out}"]) == 0
    written = json.loads(out.read_text())
    assert written["fits"] and written["gpu_hours"] > 0 and written["advice"] == []
    assert ("probing" in written["seconds_by_phase"]) == ("SaliencyReward" in path.read_text())
    kind = CPU if "accelerator: cpu" in path.read_text() else GPU
    said = " ".join(capsys.readouterr().out.split())
    assert "It fits" in said and f"{kind.efficiency:.0%} of the FLOP/s" in said


def test_an_option_of_the_run_overrides_its_config(model_config, tmp_path):
    out = tmp_path / "plan.json"
    laptop = ["plan", f"--config={ROOT / 'configs/laptop.yaml'}", *MACHINE, f"--json={out}"]
    assert main([*laptop, f"--model_config={model_config}", "--trainer.max_steps=7"]) == 0
    assert json.loads(out.read_text())["updates"] == 7


@pytest.mark.parametrize(
    ("options", "bytes_of_a_parameter"),
    [
        ([], 16),  # of two processes by DDP, with its buckets
        (["--devices=1"], 12),
        (["--trainer.strategy=fsdp2"], 6),
        (["--trainer.strategy={class_path: atmanrl.distributed.FSDP2Strategy}"], 6),
        (["--devices=1", "--model.policy.dtype=bfloat16"], 6),
    ],
)
def test_what_stands_in_memory_all_the_time(options, bytes_of_a_parameter, model_config, tmp_path):
    out = tmp_path / "plan.json"
    common = ["--model.optimizer=AdamW", f"--model_config={model_config}", f"--json={out}"]
    assert main(["plan", f"--config={ROOT / 'configs/laptop.yaml'}", *MACHINE, *common, *options]) == 0
    written = json.loads(out.read_text())
    assert written["resident_bytes"] == bytes_of_a_parameter * written["model"]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--devices=0"], "--devices is 0"),
        (["--trainer.precision=bf16-true"], "give --trainer.precision=32-true and --model.policy.dtype=bfloat16"),
        (["--memory=80XB"], "--memory '80XB'"),
        (["--memory=0GB"], "--memory '0GB'"),
        (["--flops=fast"], "--flops 'fast'"),
        (["--efficiency=2"], "--efficiency is 2.0"),
        (["--launch_us=-1"], "--launch_us is -1"),
        (["--trainer.strategy=fsdp3"], "--trainer.strategy: 'fsdp3' is an invalid strategy name; did you mean fsdp?"),
        (["--config=nowhere.yaml"], "no file nowhere.yaml"),
        (["--model_config=nowhere.json"], "no file nowhere.json"),
        (["--prompt_tokens=0"], "--prompt_tokens"),
        (["--data.queries_per_device=9000"], "problems for an update"),
        (["--devices=101"], "data.val_problems gives 100 problems to 101 devices"),
        (["--model.policy.path=/no/such/folder"], "--model_config FILE"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = [f"--config={ROOT / 'configs/laptop.yaml'}", "--trainer.max_epochs=1"]
    assert main(["plan", *config, *MACHINE, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("atmanrl: error: ") and sentence in error and "Traceback" not in error


def test_a_strategy_that_another_package_might_register_is_looked_up_when_those_are_known(capsys, monkeypatch):
    monkeypatch.setattr("atmanrl.commands.options.check.machine_refusal", lambda options: None)
    config = [f"--config={ROOT / 'configs/laptop.yaml'}", "--trainer.max_epochs=1"]
    assert main(["plan", *config, *MACHINE, "--trainer.strategy=fsdp3"]) == 1
    assert "trainer.strategy 'fsdp3' is unknown; choose one of auto, ddp" in capsys.readouterr().err


def test_a_strategys_name_is_read_in_any_case_as_by_fit(capsys):
    config = [f"--config={ROOT / 'configs/laptop.yaml'}", "--trainer.max_epochs=1"]
    assert main(["plan", *config, *MACHINE, "--trainer.strategy=DDP"]) == 0
    assert "is unknown" not in capsys.readouterr().err


def test_the_warm_start_has_one_device(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["plan", f"--config={ROOT / 'configs/laptop_sft.yaml'}", *MACHINE]) == 1
    assert "one process; give --devices 1" in capsys.readouterr().err


def test_a_config_without_a_model(tmp_path, capsys):
    (tmp_path / "bare.yaml").write_text("trainer:\n  max_steps: 3\n")
    assert main(["plan", f"--config={tmp_path / 'bare.yaml'}", *MACHINE]) == 2
    assert "model" in capsys.readouterr().err.splitlines()[0]


def test_units():
    assert parse_bytes("80GB", "") == parse_bytes("80 g", "") == 80e9
    assert parse_bytes("1GiB", "") == 2**30 and parse_bytes("3.35TB/s", "") == 3.35e12
    assert parse_flops("989T", "") == parse_flops("989TFLOPS", "") == parse_flops("0.989 PFLOP/s", "") == 989e12
    assert (bytes_text(80e9), bytes_text(12.34e9), bytes_text(512)) == ("80 GB", "12.3 GB", "512 B")
    assert (seconds_text(1.5), seconds_text(600), seconds_text(1e4)) == ("1.5 s", "10.0 min", "2.8 h")
    assert [counted(n, "update") for n in (0, 1, 2)] == ["0 updates", "1 update", "2 updates"]


@pytest.mark.parametrize(
    ("sampler", "static"),
    [
        ([], True),
        (["--data.sampler.init_args.cache=dynamic", "--data.sampler.init_args.compile=false"], False),
        (["--data.sampler.init_args.cache=static"], True),
        (["--data.sampler.init_args.cache=auto", "--data.sampler.init_args.compile=true"], True),
    ],
)
def test_a_static_cache_is_planned_where_the_config_asks_for_it(model_config, tmp_path, sampler, static):
    """Of 64 rollouts of 100 + 924 tokens: 1,024 columns, and 1,088 where room is added as it grows."""
    out = tmp_path / "plan.json"
    more = ["--data.sampler=HFSampler", *sampler] if sampler else []
    assert main([
        "plan", f"--config={ROOT / 'configs/baseline.yaml'}", *MACHINE, f"--model_config={model_config}", f"--json={out}",
        "--prompt_tokens=100", "--data.max_new_tokens=924", *more,
    ]) == 0  # fmt: skip
    written = json.loads(out.read_text())
    columns = written["memory_by_part_bytes"]["caches of sampling"] / (2 * 2 * written["model"]["layers"])
    columns /= written["model"]["kv_heads"] * written["model"]["head_dim"] * 64
    assert columns == (1024 if static else 1088)
