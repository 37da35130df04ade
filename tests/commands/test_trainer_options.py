"""Every option of Lightning's trainer in a run of two updates: it works, or one sentence refuses it."""

import pytest
from conftest import ROOT

from atmanrl.__main__ import main

SMALL = [
    "--data.queries_per_device=2", "--data.group_size=2", "--data.max_new_tokens=4", "--data.val_problems=4",
    "--data.eval_samples=1", "--data.task.train_size=12", "--trainer.val_check_interval=1000", "--trainer.max_steps=2",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip


def fit(folder, policy, *options) -> int:
    config = ["--config", str(ROOT / "configs/laptop_baseline.yaml"), f"--model.policy.path={policy}"]
    try:
        return main(["fit", *config, *SMALL, f"--trainer.default_root_dir={folder}", *options])
    except SystemExit as stop:
        return stop.code


def updates(folder) -> int:
    return len(list(folder.glob("rollouts/*.jsonl")))


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.max_steps=-1", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"],
        ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=2"],
        ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=0.5"],
        ["--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1000", "--trainer.limit_val_batches=0"],
        ["--trainer.val_check_interval=null", "--trainer.reload_dataloaders_every_n_epochs=1"],
        ["--trainer.limit_train_batches=1", "--trainer.num_sanity_val_steps=2"],
        ["--trainer.overfit_batches=1", "--trainer.detect_anomaly=true", "--trainer.profiler=simple"],
        ["--trainer.logger=false", "--trainer.min_steps=4", "--trainer.min_epochs=2", "--trainer.log_every_n_steps=0"],
        ["--trainer.use_distributed_sampler=false", "--trainer.sync_batchnorm=true", "--trainer.deterministic=warn"],
        ["--trainer.inference_mode=false", "--trainer.val_check_interval=1", "--trainer.enable_model_summary=true"],
        ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks+=LearningRateMonitor"],
    ],
    ids=lambda options: " ".join(o.removeprefix("--trainer.") for o in options),
)
def test_options_that_work(tiny_folder, tmp_path, options):
    assert fit(tmp_path / "run", tiny_folder, *options) == 0
    assert updates(tmp_path / "run") == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trainer.check_val_every_n_epoch=1"], "val_check_interval is 1000, more than the 4 updates of an epoch"),
        (["--trainer.barebones=true"], "trainer.barebones=true: a run keeps its log"),
        (["--trainer.enable_checkpointing=false"], "trainer.enable_checkpointing=false: a run writes a checkpoint"),
        (["--trainer.strategy=nonsense"], "invalid strategy name"),
        (["--trainer.strategy=fsdp"], "requires a GPU"),
        (["--trainer.accelerator=nonsense"], "invalid accelerator name"),
        (["--trainer.devices=-1"], "`devices` selected with `CPUAccelerator` should be an int > 0"),
        (["--trainer.num_nodes=0"], "`num_nodes` must be a positive integer"),
        (["--trainer.accumulate_grad_batches=2"], "gradient accumulation is not supported"),
        (["--trainer.gradient_clip_val=0.5"], "gradient clipping is not supported"),
        (["--trainer.limit_train_batches=0.1"], "limit_train_batches"),
        (["--seed_everything=-1"], "-1 is not in bounds"),
        (["--trainer.callbacks+=StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=0.1"], "no StochasticWeight"),
        (["--trainer.callbacks+=BackboneFinetuning"], "no BackboneFinetuning here"),
        (["--trainer.callbacks+=LearningRateFinder"], "no LearningRateFinder here"),
        (["--ckpt_path=best"], "--ckpt_path=best: give last"),
        (["--ckpt_path=hpc"], "--ckpt_path=hpc: give last"),
        (
            ["--trainer.max_steps=-1", "--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:20",
             "--model.lr_scheduler=atmanrl.grpo.WarmupSchedule", "--model.lr_scheduler.shape=cosine"],
            "give model.init_args.lr_scheduler.init_args.total_updates or --trainer.max_steps",
        ),
    ],
    ids=lambda value: " ".join(o.removeprefix("--trainer.") for o in value) if isinstance(value, list) else "",
)  # fmt: skip
def test_options_that_are_refused(tiny_folder, tmp_path, capsys, options, says):
    assert fit(tmp_path / "run", tiny_folder, *options) in (1, 2)
    error = capsys.readouterr().err
    first = next(line for line in error.splitlines() if "error" in line)
    assert first.startswith("atmanrl: error: ") and says in first and "Traceback" not in error, error
    assert updates(tmp_path / "run") == 0


@pytest.mark.parametrize("bar", ["true", "false"])
def test_a_run_without_an_end_that_is_known(tiny_folder, tmp_path, bar):
    """Time ends it, or a callback: the bar and the rewards do without a number of updates."""
    endless = ["--trainer.max_steps=-1", "--trainer.max_epochs=-1", f"--trainer.enable_progress_bar={bar}"]
    stop = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=reward", "--trainer.callbacks.mode=max",
            "--trainer.callbacks.patience=1", "--trainer.callbacks.check_on_train_epoch_end=true"]  # fmt: skip
    assert fit(tmp_path / "run", tiny_folder, *endless, *stop) == 0
    assert 4 <= updates(tmp_path / "run") <= 400 and (tmp_path / "run/policy").exists()
