"""`atmanrl plan` on every shipped config, what it answers, and wrong input."""

import json
import math

import pytest
from conftest import ROOT
from test_shape_and_flops import tiny

from atmanrl.__main__ import main
from atmanrl.plan.estimate import plan
from atmanrl.plan.hardware import Hardware, Lengths
from atmanrl.plan.settings import ProbeSettings, RunSettings
from atmanrl.plan.shape import ModelShape, shape_of
from atmanrl.plan.units import bytes_text, parse_bytes, parse_flops, seconds_text

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MACHINE = ["--devices=2", "--memory=80GB", "--flops=989T"]
# the 3B of the paper: 28 layers, 3072 wide, 24 heads of which 8 have keys, 128k words, head tied
PAPER = ModelShape(
    name="Llama 3B", layers=28, hidden=3072, heads=24, kv_heads=8, head_dim=128, intermediate=8192, vocabulary=128256,
    embedding_parameters=394_002_432, layer_parameters=2_818_744_320, head_parameters=0, other_parameters=3072,
    trainable_parameters=3_212_749_824,
)  # fmt: skip


@pytest.fixture(scope="module")
def model_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(tiny().to_json_string())
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_can_be_planned(path, model_config, tmp_path, capsys):
    if "lora" in path.read_text():
        pytest.importorskip("peft")
    out = tmp_path / "plan.json"
    machine = [*MACHINE, "--devices=1"] if path.stem == "laptop_sft" else MACHINE  # all that a warm start may have
    assert main(["plan", f"--config={path}", *machine, f"--model_config={model_config}", f"--json={out}"]) == 0
    found = json.loads(out.read_text())
    assert found["fits"] and found["gpu_hours"] > 0 and found["advice"] == []
    assert ("probing" in found["seconds_by_phase"]) == ("SaliencyReward" in path.read_text())
    assert "It fits" in capsys.readouterr().out


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
        (["--trainer.strategy=atmanrl.distributed.FSDP2Strategy"], 6),
        (["--devices=1", "--model.policy.dtype=bfloat16"], 6),
    ],
)
def test_what_stands_in_memory_all_the_time(options, bytes_of_a_parameter, model_config, tmp_path):
    out = tmp_path / "plan.json"
    common = ["--model.optimizer=AdamW", f"--model_config={model_config}", f"--json={out}"]
    assert main(["plan", f"--config={ROOT / 'configs/laptop.yaml'}", *MACHINE, *common, *options]) == 0
    found = json.loads(out.read_text())
    assert found["resident_bytes"] == bytes_of_a_parameter * found["model"]["parameters"]


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


def test_the_warm_start_has_one_device(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["plan", f"--config={ROOT / 'configs/laptop_sft.yaml'}", *MACHINE]) == 1
    assert "one process; give --devices 1" in capsys.readouterr().err


def test_a_config_without_a_model(tmp_path, capsys):
    (tmp_path / "bare.yaml").write_text("trainer:\n  max_steps: 3\n")
    with pytest.raises(SystemExit) as stop:
        main(["plan", f"--config={tmp_path / 'bare.yaml'}", *MACHINE])
    assert stop.value.code == 2
    assert "model" in capsys.readouterr().err.splitlines()[0]


def paper(**changes):
    settings = {
        "path": "3B", "compute_bytes": 2, "max_epochs": 5, "problems": 7373, "rescore": True, "micro_batch_tokens": 2048,
        "probe": ProbeSettings(batch_tokens=4096, gradients=201),
    }  # fmt: skip
    return RunSettings(**{**settings, **changes})


def on(devices, memory="80GB"):
    return Hardware(devices, parse_bytes(memory, ""), 989e12, 3.35e12)


def test_the_papers_model_by_hand():
    """fp32 weights, two moments and DDP's buckets of 3.2 billion weights; 7373 // (8 x 4) updates in an epoch."""
    found = plan(PAPER, paper(), on(4), Lengths())
    assert found.resident == 16 * PAPER.parameters
    assert found.updates == 5 * (7373 // 32)
    assert found.tokens_per_update == 4 * 64 * (160 + 250)
    assert found.gpu_hours == pytest.approx(4 * found.updates * found.update_seconds / 3600)
    assert found.seconds_by_phase["probing"] > found.seconds_by_phase["update"]


def test_the_papers_model_on_one_gpu():
    """28 layers of 40 kernels and 49 more, 20 microseconds each, for every token of the longest of 64 completions."""
    found = plan(PAPER, paper(), on(1), Lengths())
    assert found.resident == 12 * PAPER.parameters
    token = (28 * 40 + 49) * 20e-6
    assert found.seconds_by_phase["sampling"] == pytest.approx(token * 250 * (1 + 0.39 * math.log(64)), rel=0.01)
    assert 15 < found.seconds_by_phase["sampling"] < 30
    longer = plan(PAPER, paper(), on(1), Lengths(completion=600))  # none is longer than data.max_new_tokens
    assert longer.seconds_by_phase["sampling"] == pytest.approx(token * 1024, rel=0.01)


def test_gradients_and_the_copy_of_the_weights_are_never_there_together():
    found = plan(PAPER, paper(), on(1), Lengths())
    parts, peaks = found.memory_by_part, found.peak_by_phase
    assert parts["gradients"] == 4 * PAPER.parameters and parts["copy of the weights"] == 2 * PAPER.parameters
    cache = (
        64 * (160 + 1024 + 64) * 28 * 2 * 1024 * 2
    )  # rollouts, positions, layers, keys and values, 8 heads of 128, bf16
    assert parts["caches of sampling"] == cache
    rest = found.resident + parts["copy of the weights"]
    assert peaks["sampling"] == rest + cache + parts["logits of sampling"]
    assert peaks["probing"] == rest + parts["masks and their solver"] + parts["activations of the probe"]
    assert peaks["update"] > found.resident + parts["gradients"]
    exact = plan(PAPER, paper(compute_bytes=4), on(1), Lengths()).memory_by_part
    assert exact["copy of the weights"] == 0 and exact["caches of sampling"] == 2 * cache


def test_old_logprobs_are_computed_again_in_mixed_precision(model_config, tmp_path):
    """As `GRPOModule.rescore` does by itself."""
    seconds = []
    for precision in ("32-true", "bf16-mixed"):
        out = tmp_path / f"{precision}.json"
        laptop = ["plan", f"--config={ROOT / 'configs/laptop.yaml'}", *MACHINE, "--flops=1G", f"--json={out}"]
        assert main([*laptop, f"--model_config={model_config}", f"--trainer.precision={precision}"]) == 0
        seconds.append(json.loads(out.read_text())["seconds_by_phase"]["update"])
    assert seconds[1] == pytest.approx(seconds[0] * 7 / 6, rel=0.05)  # two passes of three forwards each, and one more


def test_what_changes_memory_and_time():
    alone = plan(PAPER, paper(), on(48), Lengths())
    shared = plan(PAPER, paper(sharded=True), on(48), Lengths())
    assert shared.resident == pytest.approx((alone.resident - alone.memory_by_part["buckets of DDP"]) / 48)
    assert shared.seconds_by_phase["update"] > alone.seconds_by_phase["update"]
    saving = plan(PAPER, paper(checkpointing=True), on(48), Lengths())
    assert saving.peak_by_phase["update"] < alone.peak_by_phase["update"]
    assert saving.seconds_by_phase["update"] > alone.seconds_by_phase["update"]
    longer = plan(PAPER, paper(), on(48), Lengths(completion=500))
    assert all(longer.seconds_by_phase[phase] > alone.seconds_by_phase[phase] for phase in alone.seconds_by_phase)


def test_what_does_not_fit_gets_advice_that_helps():
    small = plan(PAPER, paper(), on(8, "40GB"), Lengths())
    assert not small.fits
    hints = small.as_dict()["advice"]
    assert any("FSDP2Strategy" in hint for hint in hints) and any("lora" in hint for hint in hints)
    assert plan(PAPER, paper(sharded=True), on(8, "40GB"), Lengths()).peak < small.peak


def test_units():
    assert parse_bytes("80GB", "") == parse_bytes("80 g", "") == 80e9
    assert parse_bytes("1GiB", "") == 2**30 and parse_bytes("3.35TB/s", "") == 3.35e12
    assert parse_flops("989T", "") == parse_flops("989TFLOPS", "") == parse_flops("0.989 PFLOP/s", "") == 989e12
    assert (bytes_text(80e9), bytes_text(12.34e9), bytes_text(512)) == ("80 GB", "12.3 GB", "512 B")
    assert (seconds_text(1.5), seconds_text(600), seconds_text(1e4)) == ("1.5 s", "10.0 min", "2.8 h")


def test_the_shape_in_this_file_is_the_models(tmp_path):
    config = tiny(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, head_dim=128, num_attention_heads=24,
        num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    assert shape_of(config).parameters == PAPER.parameters == 3_212_749_824


@pytest.mark.parametrize(
    ("sampler", "static"),
    [
        ([], False),
        (["--data.sampler.init_args.cache=dynamic"], False),
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
    found = json.loads(out.read_text())
    columns = found["memory_by_part_bytes"]["caches of sampling"] / (2 * 2 * found["model"]["layers"])
    columns /= found["model"]["kv_heads"] * found["model"]["head_dim"] * 64
    assert columns == (1024 if static else 1088)
